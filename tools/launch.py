# Copyright (c) mmdetr authors. All rights reserved.
"""Run train.py, test.py or detect.py in one or several processes.

Used by dist_train.sh, dist_test.sh and dist_detect.sh.
"""

import argparse
import logging
import os
import os.path as osp
import signal
import sys

TOOLS = osp.dirname(osp.abspath(__file__))

DESCRIPTION = """\
Several processes communicate through NCCL, with a GPU each, or through gloo on
machines without GPUs.

For several machines run the same command on each, with these variables:
  NNODES       number of machines (default: 1)
  NODE_RANK    index of this machine, from 0
  MASTER_ADDR  name or address of machine 0
  PORT         a free port of machine 0 (default: 29500; on a single machine
               any free port)
  TIMEOUT      seconds that machines wait for each other (default: 600)

SIGTERM and SIGUSR1 are forwarded: a training saves a checkpoint and ends.
"""
POSITIONALS = {
    'train': ('config', 'gpus', 'work_dir'),
    'test': ('config', 'checkpoint', 'gpus'),
    'detect': ('checkpoint', 'source', 'gpus'),
}
HELP = {
    'config': 'config file',
    'checkpoint': 'checkpoint file',
    'source': 'a folder of images, or anything else that detect.py takes',
    'gpus': 'number of GPUs of this machine, or of processes without GPUs',
    'work_dir': 'folder for checkpoints and logs',
}


def parse_args() -> argparse.Namespace:
    """Read the command line, of which the first word names the task."""
    first = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    first.add_argument('task', choices=POSITIONALS, help='which script')
    task = first.parse_args(sys.argv[1:2]).task
    names = POSITIONALS[task]
    called, passed_to = f'./dist_{task}.sh', f'tools/{task}.py'
    if not first.prog.endswith('.py'):  # called as python -m project launch
        called = f'{first.prog} {task}'
        passed_to = called.replace(' launch', '')
    parser = argparse.ArgumentParser(
        prog=called,
        usage=f'%(prog)s {" ".join(names).upper()} [OPTION ...]',
        description=DESCRIPTION,
        epilog=f'OPTION: passed on to {passed_to}; see its --help.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in names:
        kind = _positive if name == 'gpus' else str
        parser.add_argument(
            name, metavar=name.upper(), type=kind, help=HELP[name]
        )
    given = sys.argv[2:]
    args = parser.parse_args(given[: len(names)])
    args.task, args.options = task, given[len(names) :]
    for name in ('config', 'checkpoint'):
        path = getattr(args, name, '://')
        if '://' not in path and not osp.isfile(path):
            sys.exit(f'Error: The {name} {path} does not exist.')
    return args


def _positive(text: str) -> int:
    """Read a count."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(
            f'expected a number of at least 1, got {text!r}'
        )
    return int(text)


def job(args: argparse.Namespace) -> list[str]:
    """Name the script to run, with its arguments.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        list[str]: The script and its arguments.
    """
    script = osp.join(TOOLS, f'{args.task}.py')
    given = {
        'train': lambda: [args.config, '--work-dir', args.work_dir],
        'test': lambda: [args.config, args.checkpoint],
        'detect': lambda: [args.checkpoint, args.source],
    }[args.task]()
    return [script, *given, *args.options]


def rendezvous() -> list[str]:
    """Tell torchrun where the processes of the job find each other.

    Returns:
        list[str]: Options of torchrun.
    """
    env = os.environ
    num_nodes = env.get('NNODES', '1')
    if not num_nodes.isdecimal():
        sys.exit(
            f'Error: NNODES is {num_nodes!r}; expected how many machines '
            'there are.'
        )
    if num_nodes == '1' and 'PORT' not in env:
        return ['--standalone']  # asks the system for a free port
    timeout = env.get('TIMEOUT', '600')
    if not timeout.isdecimal() or not int(timeout):
        sys.exit(
            f'Error: TIMEOUT is {timeout!r}; expected how many seconds '
            'machines wait for each other.'
        )
    missing = [
        name
        for name in ('NODE_RANK', 'MASTER_ADDR')
        if name not in env and num_nodes != '1'
    ]
    if missing:
        sys.exit(
            f'Error: NNODES is {num_nodes}, so {" and ".join(missing)} must '
            'be set too: which machine this is, from 0, and where machine 0 '
            'is found.'
        )
    return [
        f'--nnodes={num_nodes}',
        f'--node-rank={env.get("NODE_RANK", "0")}',
        f'--master-addr={env.get("MASTER_ADDR", "127.0.0.1")}',
        f'--master-port={env.get("PORT", "29500")}',
        f'--rdzv-conf=timeout={timeout}',
    ]


def wait_for_machines() -> None:
    """Say who is waited for, and wait for machine 0."""
    from project.utils.errors import UserError
    from project.utils.rendezvous import tell, wait_for_master

    env = os.environ
    address = env.get('MASTER_ADDR', '127.0.0.1')
    port, timeout = env.get('PORT', '29500'), int(env.get('TIMEOUT', '600'))
    if env.get('NODE_RANK', '0') == '0':
        others = int(env['NNODES']) - 1
        tell(
            f'Waiting at {address}:{port} for {others} other '
            f'machine{"s" if others > 1 else ""} for up to {timeout} s.'
        )
        return
    try:
        wait_for_master(address, port, timeout)
    except UserError as error:
        sys.exit(f'Error: {error}')


def prepare_processes(num_processes: int) -> None:
    """Check that there is a GPU for each process, or share out the cores.

    Args:
        num_processes (int): How many are going to run on this machine.
    """
    import torch

    from project.utils.cores import num_cores

    if torch.accelerator.is_available():
        num_gpus = torch.accelerator.device_count()
        if num_processes > num_gpus:
            sys.exit(
                f'Error: {num_processes} GPUs were asked for, but this '
                f'machine has {num_gpus}.'
            )
        num_threads = 1  # as torchrun does
    else:
        num_threads = max(1, num_cores() // num_processes)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, str(num_threads))


def run_processes(
    num_processes: int, rendezvous_options: list[str], command: list[str]
) -> int:
    """Run a command in several processes and wait for them.

    All are ended when one of them fails, or when this process is
    interrupted or asked to end. They get the signal that came here, and 30
    seconds to save.

    Args:
        num_processes (int): How many to run on this machine.
        rendezvous_options (list[str]): As :func:`rendezvous` returns.
        command (list[str]): A script and its arguments.

    Returns:
        int: The exit status: 0, that of the first process which failed, or
        128 and the number of the signal that ended it or this process.
    """
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import (
        ChildFailedError,
    )

    def pass_on(number: int, frame: object) -> None:
        """Do with a signal what torchrun does with those it knows."""
        name = signal.Signals(number)
        raise SignalException(f'{name.name} has come', sigval=name)

    signal.signal(signal.SIGUSR1, pass_on)
    # torchrun's own words; the processes say themselves what went wrong.
    logging.disable()
    options = [*rendezvous_options, f'--nproc-per-node={num_processes}']
    try:
        run.run(run.parse_args([*options, *command]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        print(f'Error: Process {rank} was ended by {name}.', file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    except DistError as error:
        reason = str(error).splitlines()[0]
        meeting = ' '.join(rendezvous_options)
        print(
            f'Error: The processes cannot meet with {meeting}: {reason}',
            file=sys.stderr,
        )
        return 1
    return 0


def main() -> None:
    """Start the job."""
    args = parse_args()
    command = job(args)
    if args.gpus == 1 and os.environ.get('NNODES', '1') == '1':
        os.execv(sys.executable, [sys.executable, *command])
    options = rendezvous()
    prepare_processes(args.gpus)
    if os.environ.get('NNODES', '1') != '1':
        wait_for_machines()
    command += ['--launcher', 'pytorch']
    sys.exit(run_processes(args.gpus, options, command))


if __name__ == '__main__':
    main()
