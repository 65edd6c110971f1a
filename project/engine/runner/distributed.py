# Copyright (c) mmdetr authors. All rights reserved.
"""Process groups where mmengine cannot start them: on machines without GPU."""

import datetime
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from mmengine.device import (
    is_cuda_available,
    is_mlu_available,
    is_musa_available,
    is_npu_available,
)
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    is_distributed,
    is_main_process,
)
from torch import distributed as torch_dist

from project.utils.errors import UserError, raise_everywhere
from project.utils.rendezvous import (
    timeout_of_environment,
    told_if_slow,
    wait_for_master,
)

_Decision = TypeVar('_Decision')

# What each launcher tells its processes: rank, their number and the rank
# among those of one machine.
_LAUNCHER_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}
_HOW_TO_START = {
    'pytorch': './dist_train.sh or torchrun',
    'slurm': 'tools/slurm_train.sh or srun',
    'mpi': 'mpirun',
}


def has_accelerator() -> bool:
    """Tell whether mmengine would train on something else than the CPU."""
    return (
        is_cuda_available()
        or is_npu_available()
        or is_mlu_available()
        or is_musa_available()
    )


def set_rank_variables(launcher: str) -> None:
    """Name rank, size and address the way torch reads them.

    Args:
        launcher (str): ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        UserError: If the process was not started by that launcher, or no
            address of the first process is known.
    """
    names = _LAUNCHER_VARIABLES[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables '
            f'{", ".join(missing)}; start the job with '
            f'{_HOW_TO_START[launcher]}, or without --launcher as one process.'
        )
    torch_names = _LAUNCHER_VARIABLES['pytorch']
    for ours, theirs in zip(torch_names, names, strict=True):
        os.environ[ours] = os.environ[theirs]
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _master_address(launcher)


def _master_address(launcher: str) -> str:
    """Find the machine of rank 0."""
    one_machine = {
        'pytorch': False,  # torchrun always says
        'slurm': os.environ.get('SLURM_NNODES') == '1',
        'mpi': os.environ['WORLD_SIZE']
        == os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE'),
    }
    if one_machine[launcher]:
        return '127.0.0.1'
    if launcher == 'slurm' and shutil.which('scontrol'):
        nodes = os.environ.get('SLURM_NODELIST', '')
        command = ['scontrol', 'show', 'hostnames', nodes]
        hosts = subprocess.run(command, capture_output=True, text=True)
        if hosts.returncode == 0 and hosts.stdout.split():
            return hosts.stdout.split()[0]
    raise UserError(
        f'--launcher {launcher} needs the environment variable MASTER_ADDR: '
        'the name or address of the machine where rank 0 runs.'
    )


@contextmanager
def others_waited_for(launcher: str) -> Iterator[None]:
    """Say who is waited for while the processes of a job meet.

    torchrun has let them meet before it starts them.

    Args:
        launcher (str): As for :func:`set_rank_variables`, which goes before.

    Raises:
        UserError: If the first process does not answer.
    """
    env = os.environ
    address, port = env['MASTER_ADDR'], env['MASTER_PORT']
    if launcher != 'pytorch' and env['RANK'] != '0':
        wait_for_master(address, port, timeout_of_environment())
    others = int(env['WORLD_SIZE']) - 1
    with told_if_slow(
        f'Process {env["RANK"]} waits at {address}:{port} for the {others} '
        'others.'
    ):
        yield


def is_first_of_machine() -> bool:
    """Tell whether no other process of this machine has a lower rank."""
    return not is_distributed() or int(os.environ['LOCAL_RANK']) == 0


def check_local_device() -> None:
    """Raise if this machine has fewer GPUs than processes.

    Raises:
        UserError: If the process has no GPU of its own.
    """
    if not is_cuda_available():
        return
    num_gpus = torch.cuda.device_count()
    num_processes = int(os.environ.get('LOCAL_WORLD_SIZE', 0))
    num_processes = max(num_processes, int(os.environ['LOCAL_RANK']) + 1)
    if num_processes > num_gpus:
        raise UserError(
            f'{num_processes} processes were started on a machine with '
            f'{num_gpus} GPU(s); ask for at most {num_gpus}.'
        )


def init_cpu_group(dist_cfg: Mapping[str, Any]) -> None:
    """Start a gloo group from torch's environment variables.

    mmengine's own start selects a CUDA device first, whatever the backend,
    and leaves a group alone that exists.

    Args:
        dist_cfg (Mapping): ``env_cfg.dist_cfg`` of the config, of which
            ``timeout`` (seconds) applies here.
    """
    kwargs = {}
    if dist_cfg.get('timeout') is not None:
        kwargs['timeout'] = datetime.timedelta(seconds=dist_cfg['timeout'])
    torch_dist.init_process_group('gloo', **kwargs)


def raise_together(check: Callable[[], None]) -> None:
    """Run a check on each process and raise on all if one of them fails.

    A process that stopped alone would leave the others waiting for it.

    Args:
        check (Callable): Raises a ``UserError`` if something is wrong.

    Raises:
        UserError: The first one by rank.
    """
    sentence = None
    try:
        check()
    except UserError as error:
        sentence = str(error)
    raise_everywhere(all_gather_object(sentence))


def decide_together(decide: Callable[[], _Decision]) -> _Decision:
    """Have the first process decide for all.

    Args:
        decide (Callable): Is called by the process of rank 0.

    Returns:
        Any: What it returned, on each process.

    Raises:
        UserError: If it raised one, on each process.
    """
    decision: list[Any] = [None]

    def run() -> None:
        if is_main_process():
            decision[0] = decide()

    raise_together(run)
    broadcast_object_list(decision)
    return decision[0]
