# Copyright (c) mmdetr authors. All rights reserved.
"""Process groups of distributed jobs, also on machines without a GPU."""

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

# Where each launcher says rank, world size and local rank.
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
    """Return whether mmengine would train on another device than the CPU."""
    return (
        is_cuda_available()
        or is_npu_available()
        or is_mlu_available()
        or is_musa_available()
    )


def set_rank_variables(launcher: str) -> None:
    """Set torch's variables for rank, world size and master address.

    Args:
        launcher (str): ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        UserError: If the process was not started by that launcher, or the
            address of rank 0 is unknown.
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
    """Find the address of rank 0."""
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
    """Print whom this process waits for while the process group forms.

    With torchrun, the processes have met before they are started.

    Args:
        launcher (str): As for :func:`set_rank_variables`, which has to be
            called first.

    Raises:
        UserError: If rank 0 does not answer in time.
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
    """Return whether this process has the lowest rank on its machine."""
    return not is_distributed() or int(os.environ['LOCAL_RANK']) == 0


def check_local_device() -> None:
    """Raise if this machine has fewer GPUs than processes.

    Raises:
        UserError: If the process has no GPU of its own.
    """
    if not has_accelerator():
        return
    num_gpus = torch.accelerator.device_count()
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
    but keeps a group that exists.

    Args:
        dist_cfg (Mapping): ``env_cfg.dist_cfg`` of the config; only its
            ``timeout`` (seconds) is used.
    """
    kwargs: dict[str, Any] = {}
    if dist_cfg.get('timeout') is not None:
        kwargs['timeout'] = datetime.timedelta(seconds=dist_cfg['timeout'])
    torch_dist.init_process_group('gloo', **kwargs)


def raise_together(check: Callable[[], None]) -> None:
    """Run a check on each process and raise on all if one of them fails.

    If one process stopped alone, the others would wait for it forever.

    Args:
        check (Callable): Raises a ``UserError`` if something is wrong.

    Raises:
        UserError: That of the lowest rank.
    """
    sentence = None
    try:
        check()
    except UserError as error:
        sentence = str(error)
    raise_everywhere(all_gather_object(sentence))


def decide_together(decide: Callable[[], _Decision]) -> _Decision:
    """Call a function on rank 0 and broadcast its result.

    Args:
        decide (Callable): Is called by the process of rank 0.

    Raises:
        UserError: On each process, if it raised one.
    """
    decision: list[Any] = [None]

    def run() -> None:
        if is_main_process():
            decision[0] = decide()

    raise_together(run)
    broadcast_object_list(decision)
    return decision[0]
