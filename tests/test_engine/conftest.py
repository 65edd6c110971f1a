import os
import socket
from collections.abc import Iterator

import pytest
from torch import distributed as torch_dist

import tests.helpers.unformatted_configs  # noqa: F401
from tests.helpers.training import toy_data

__all__ = ['toy_data']

RANK_NAMES = (
    'RANK',
    'WORLD_SIZE',
    'LOCAL_RANK',
    'LOCAL_WORLD_SIZE',
    'MASTER_ADDR',
    'MASTER_PORT',
)


@pytest.fixture
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no launcher has prepared, and will be again."""
    for name in list(os.environ):
        if name.startswith(('SLURM_', 'OMPI_')):
            monkeypatch.delenv(name)
    for name in RANK_NAMES:
        # Setting first makes monkeypatch undo what the code under test sets.
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def one_rank(no_ranks: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of torchrun's only process."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    for name, value in dict(
        RANK='0',
        WORLD_SIZE='1',
        LOCAL_RANK='0',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    ).items():
        no_ranks.setenv(name, value)
    yield
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
