import os

import pytest

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
