# Copyright (c) mmdetr authors. All rights reserved.
"""Checkpoints of mmengine load with ``weights_only``, others do not."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner

from project.checkpoints.safe_types import allow_mmengine_checkpoints

pytestmark = pytest.mark.usefixtures('_allowed')


@pytest.fixture(scope='module')
def _allowed():
    before = torch.serialization.get_safe_globals()
    allow_mmengine_checkpoints()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


class OneWeight(BaseModel):
    """The smallest model that mmengine's Runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(self.weight * torch.stack(inputs)).mean())


@pytest.fixture(scope='module')
def trained_checkpoint(tmp_path_factory) -> Path:
    """What mmengine's own Runner saves after two iterations."""
    work_dir = tmp_path_factory.mktemp('work_dir')
    runner = Runner(
        model=OneWeight(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(1)) for _ in range(4)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        cfg=Config(),
        experiment_name=work_dir.name,
    )
    runner.train()
    return work_dir / 'epoch_1.pth'


def dump_safely(value: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def test_mmengine_reads_its_own_checkpoint(trained_checkpoint):
    checkpoint = CheckpointLoader.load_checkpoint(str(trained_checkpoint))

    history = checkpoint['message_hub']['log_scalars']['train/loss']
    values, counts = history.data
    assert values.shape == (2,)
    assert history.mean() == pytest.approx(values.sum() / counts.sum())
    assert checkpoint['message_hub']['runtime_info']['iter'] == 1
    assert checkpoint['state_dict']['weight'].shape == (1,)


def test_without_the_repair_mmengine_cannot(trained_checkpoint):
    load = f'import torch; torch.load({str(trained_checkpoint)!r})'
    result = subprocess.run(
        [sys.executable, '-c', load], capture_output=True, text=True
    )
    assert 'Unsupported global' in result.stderr


@pytest.mark.parametrize('core', ['numpy._core', 'numpy.core'])
def test_reads_what_either_numpy_wrote(core):
    """In torch's older format, where names are plain text."""
    values = {'scalar': np.float32(0.5), 'array': np.arange(3)}
    file = io.BytesIO()
    torch.save(values, file, _use_new_zipfile_serialization=False)
    written = file.getvalue()
    ours = np.ndarray.__reduce__(np.ones(1))[0].__module__.encode()
    assert ours in written
    renamed = written.replace(ours, f'{core}.multiarray'.encode())

    loaded = torch.load(io.BytesIO(renamed), weights_only=True)

    assert loaded['scalar'] == np.float32(0.5)
    np.testing.assert_array_equal(loaded['array'], np.arange(3))


@pytest.mark.parametrize(
    'value',
    [
        np.array([True, False]),
        np.arange(3, dtype=np.uint8),
        np.arange(3, dtype=np.int32),
        np.linspace(0, 1, 3, dtype=np.float16),
        np.linspace(0, 1, 3),
        np.int64(7),
    ],
    ids=lambda value: str(value.dtype),
)
def test_reads_numbers_of_every_kind(value):
    loaded = torch.load(dump_safely(value))
    assert loaded.dtype == value.dtype
    np.testing.assert_array_equal(loaded, value)


def test_refuses_other_classes():
    with pytest.raises(pickle.UnpicklingError, match=r'pathlib\.PosixPath'):
        torch.load(dump_safely(Path('a/b')))


class LooksUp:
    """Pickled as a call of ``getattr``."""

    def __init__(self, owner: object, name: str) -> None:
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        (getattr, '__self__'),
        (np.ndarray, 'tofile'),
        (torch.FloatStorage, 'from_file'),
    ],
)
def test_refuses_attributes_of_anything_but_the_history(owner, name):
    with pytest.raises(pickle.UnpicklingError, match=f'looks up.*{name}'):
        torch.load(dump_safely(LooksUp(owner, name)))


@pytest.mark.parametrize('name', ['__init__', '_statistics_methods', 'none'])
def test_refuses_what_is_no_statistics_method(name):
    from mmengine.logging import HistoryBuffer

    with pytest.raises(pickle.UnpicklingError, match=f'looks up.*{name}'):
        torch.load(dump_safely(LooksUp(HistoryBuffer, name)))


def test_is_harmless_twice():
    before = set(torch.serialization.get_safe_globals())
    allow_mmengine_checkpoints()
    assert set(torch.serialization.get_safe_globals()) == before
