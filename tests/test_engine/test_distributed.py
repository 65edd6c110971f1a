"""What the launchers tell their processes."""

import os
from pathlib import Path

import pytest
import torch

from project.engine.runner.distributed import (
    check_local_device,
    set_rank_variables,
)
from project.utils.errors import UserError

TORCH_NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')


def slurm(no_ranks: pytest.MonkeyPatch, num_nodes: str) -> None:
    no_ranks.setenv('SLURM_PROCID', '5')
    no_ranks.setenv('SLURM_NTASKS', '8')
    no_ranks.setenv('SLURM_LOCALID', '1')
    no_ranks.setenv('SLURM_NNODES', num_nodes)
    no_ranks.setenv('SLURM_NODELIST', 'node[3-4]')


def test_slurm_on_one_machine(no_ranks: pytest.MonkeyPatch) -> None:
    slurm(no_ranks, num_nodes='1')
    set_rank_variables('slurm')
    values = [os.environ[name] for name in TORCH_NAMES]
    assert values == ['5', '8', '1', '127.0.0.1']
    assert os.environ['MASTER_PORT'] == '29500'


def test_slurm_on_several_machines_asks_scontrol(
    no_ranks: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text(
        '#!/bin/sh\n'
        '[ "$*" = "show hostnames node[3-4]" ] && echo node3 && echo node4\n'
    )
    scontrol.chmod(0o755)
    no_ranks.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    no_ranks.setenv('MASTER_PORT', '1234')
    slurm(no_ranks, num_nodes='2')
    set_rank_variables('slurm')
    assert os.environ['MASTER_ADDR'] == 'node3'
    assert os.environ['MASTER_PORT'] == '1234'


def test_slurm_without_scontrol(
    no_ranks: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_ranks.setenv('PATH', str(tmp_path))
    slurm(no_ranks, num_nodes='2')
    with pytest.raises(UserError, match='MASTER_ADDR'):
        set_rank_variables('slurm')


@pytest.mark.parametrize('local_size', ['2', '1'])
def test_mpi_knows_whether_there_is_one_machine(
    no_ranks: pytest.MonkeyPatch, local_size: str
) -> None:
    no_ranks.setenv('OMPI_COMM_WORLD_RANK', '1')
    no_ranks.setenv('OMPI_COMM_WORLD_SIZE', '2')
    no_ranks.setenv('OMPI_COMM_WORLD_LOCAL_RANK', '1')
    no_ranks.setenv('OMPI_COMM_WORLD_LOCAL_SIZE', local_size)
    if local_size == '2':
        set_rank_variables('mpi')
        assert os.environ['MASTER_ADDR'] == '127.0.0.1'
        assert os.environ['LOCAL_RANK'] == '1'
    else:
        with pytest.raises(UserError, match='MASTER_ADDR'):
            set_rank_variables('mpi')


def test_each_process_needs_a_gpu(no_ranks: pytest.MonkeyPatch) -> None:
    no_ranks.setattr(torch.cuda, 'is_available', lambda: True)
    no_ranks.setattr(torch.accelerator, 'device_count', lambda: 2)
    no_ranks.setenv('LOCAL_RANK', '1')
    check_local_device()
    no_ranks.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(UserError, match=r'4 processes .* 2 GPU'):
        check_local_device()
    no_ranks.delenv('LOCAL_WORLD_SIZE')
    no_ranks.setenv('LOCAL_RANK', '2')
    with pytest.raises(UserError, match='3 processes'):
        check_local_device()
