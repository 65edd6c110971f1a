# Copyright (c) mmdetr authors. All rights reserved.
"""Options and steps that the tools have in common.

Nothing heavy is imported at the top, so that mistakes on the command line are
reported at once instead of after the seconds that importing mmdet takes.
"""

import argparse
import contextlib
import ctypes
import os
import os.path as osp
import select
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Warnings of the libraries about themselves, of no use to a user.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
warnings.filterwarnings('ignore', 'torch.meshgrid')
warnings.filterwarnings('ignore', '.broadcast_buffers. is deprecated')
# Of mmengine, where the first step still accumulates gradients.
warnings.filterwarnings('ignore', 'Detected call of .scheduler.step')

from _types import out_folder, override  # noqa: E402
from mmengine.config import Config, DictAction  # noqa: E402

if TYPE_CHECKING:
    from project.engine import DETRRunner

TOOLS = osp.dirname(osp.abspath(__file__))
# From linux/prctl.h: the signal to get when the parent process ends.
_PR_SET_PDEATHSIG = 1
# Where other launchers than torchrun say which process of a machine it is.
_LOCAL_RANKS = {'slurm': 'SLURM_LOCALID', 'mpi': 'OMPI_COMM_WORLD_LOCAL_RANK'}
# Processes that find the same mistake find it within this time, in seconds.
_SAME_MISTAKE = 10


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common.

    Args:
        parser (argparse.ArgumentParser): Gets the options.
    """
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        help='folder for logs, checkpoints and metrics '
        '(default: work_dirs/<name of the config>)',
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what starts the processes of a distributed job',
    )
    add_local_rank(parser)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that reads a config.

    Args:
        parser (argparse.ArgumentParser): Gets the options.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=override,
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example data_root=FOLDER '
        'or train_dataloader.batch_size=4; lists are written as key="[a,b]" '
        'or key=a,b',
    )
    add_traceback(parser)


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """Add ``--traceback``, for :func:`user_errors`.

    Args:
        parser (argparse.ArgumentParser): Gets the option.
    """
    parser.add_argument(
        '--traceback',
        action='store_true',
        help='show where an error was raised, not only its message',
    )


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Add what older starters of torch pass instead of ``LOCAL_RANK``.

    Args:
        parser (argparse.ArgumentParser): Gets the option, which is hidden.
    """
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def join_job(args: argparse.Namespace) -> None:
    """Make this process one of those that its launcher has started.

    torchrun gives each process a session of its own. Where torchrun is killed
    outright, they would train on unseen, into the folder of the next attempt.

    Args:
        args (argparse.Namespace): With the shared arguments.
    """
    name = _LOCAL_RANKS.get(args.launcher, '')
    local_rank = os.environ.get(name, str(args.local_rank))
    os.environ.setdefault('LOCAL_RANK', local_rank)
    if args.launcher == 'pytorch' and sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def detect_command(checkpoint: str) -> str:
    """Tell how to detect with a checkpoint, for a shell.

    Args:
        checkpoint (str): The file.

    Returns:
        str: The command, with a placeholder for what to detect in. It works
        in any folder from which the checkpoint's path holds.
    """
    script = [osp.join(TOOLS, 'detect.py')]
    if not osp.isfile(osp.join(osp.dirname(TOOLS), 'dist_detect.sh')):
        script = ['-m', 'project', 'detect']  # an installed wheel
    return shlex.join([sys.executable, *script, checkpoint, 'IMAGE'])


def require_file(path: str, what: str) -> None:
    """End the program with one sentence if a file does not exist.

    Args:
        path (str): A path on this machine, or an address to load from.
        what (str): How to call the file.
    """
    if '://' not in path and not osp.isfile(path):
        sys.exit(f'Error: The {what} {path} does not exist.')


@contextlib.contextmanager
def user_errors(with_traceback: bool = False) -> Iterator[None]:
    """Report mistakes of the user in one sentence and exit with status 1.

    Of several processes that find the same mistake the first one speaks. A
    reader of the output that leaves early, such as ``head``, ends the program
    in silence.

    Args:
        with_traceback (bool): Whether to show where it was found instead.
            Defaults to False.
    """
    from project.utils.errors import UserError

    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_lost_its_reader():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        if with_traceback:
            raise
        if int(os.environ.get('LOCAL_RANK', 0)) > 0:
            # The launcher ends this process when the first one has spoken.
            # If it lives on, it alone has found something.
            time.sleep(_SAME_MISTAKE)
            if error.is_everywhere:
                sys.exit(1)
        sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _has_lost_its_reader() -> bool:
    """Whether nobody reads the output; nothing else is written to it then."""
    output = select.poll()
    output.register(sys.stdout, 0)  # tells errors and the other end's closing
    is_lost = bool(output.poll(0))
    if is_lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_lost


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the options of the command line.

    Args:
        args (argparse.Namespace): With the shared arguments and ``config``.

    Returns:
        Config: The config with ``work_dir``, ``launcher`` and a runner.

    Raises:
        UserError: If config or options cannot be read.
    """
    import project.engine  # noqa: F401  registers everything of the package
    from project.preflight.config_files import read_config_file

    cfg = read_config_file(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    name = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = (
        args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', name)
    )
    if 'runner_type' not in cfg:
        cfg.runner_type = 'DETRRunner'
    return cfg


def build_runner(cfg: Config) -> 'DETRRunner':
    """Build the runner that the config asks for.

    Args:
        cfg (Config): As :func:`load_config` returns.

    Returns:
        Runner: The runner.

    Raises:
        UserError: If the config cannot work.
    """
    from mmdet.registry import RUNNERS
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    from project.preflight.config import check_runner_type

    setup_cache_size_limit_of_dynamo()
    check_runner_type(cfg)
    return RUNNERS.build(cfg)
