# Copyright (c) mmdetr authors. All rights reserved.
"""A file that would run code runs none, by whichever door it comes in."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import CheckpointLoader, Runner

from project.apis import load_detector
from project.checkpoints.converter import convert_file
from project.checkpoints.plain_config import is_plain_config
from project.checkpoints.reading import read_weights
from project.utils.errors import UserError
from tests.helpers.hostile import Trap, send, serving
from tests.helpers.training import toy_config, toy_data  # noqa: F401

REFUSED = 'mkdir, not tensors alone, and loading it could run code'


@pytest.fixture
def sprung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the trap would leave; it must not."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    yield tmp_path / 'sprung'
    assert not (tmp_path / 'sprung').exists()


@pytest.fixture(params=['file', 'address', 'old address'])
def hostile(
    request: pytest.FixtureRequest, sprung: Path, tmp_path: Path
) -> Iterator[str]:
    """A checkpoint that would run code, on the disk or on a server."""
    file = io.BytesIO()
    is_old = request.param.startswith('old')
    torch.save(
        dict(state_dict={}, meta=Trap(sprung)),
        file,
        _use_new_zipfile_serialization=not is_old,
    )
    if request.param == 'file':
        path = tmp_path / 'hostile.pth'
        path.write_bytes(file.getvalue())
        yield str(path)
        return
    with serving(lambda query: send(query, file.getvalue())) as server:
        yield f'{server}/hostile.pth'


@pytest.fixture
def config(toy_data: Path, tmp_path: Path) -> Config:  # noqa: F811
    return toy_config(toy_data, tmp_path / 'run')


def train(config: Config, **options: Any) -> None:
    config.merge_from_dict(options)
    RUNNERS.build(config).train()


def load_by_mmengine(config: Config, path: str) -> None:
    config.pop('runner_type')
    runner = Runner.from_cfg(config)
    runner.load_checkpoint(path)


def initialise(config: Config, path: str) -> None:
    init_cfg = dict(type='Pretrained', checkpoint=path)
    MODELS.build(
        dict(type='mmdet.ResNet', depth=18, init_cfg=init_cfg)
    ).init_weights()


DOORS: dict[str, Callable[[Config, str], object]] = {
    'load_from': lambda config, path: train(config, load_from=path),
    'resume': lambda config, path: train(config, load_from=path, resume=True),
    'test': lambda config, path: RUNNERS.build(
        Config(dict(config, load_from=path))
    ).test(),
    'init_cfg': lambda config, path: train(
        config,
        **{
            'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=path)
        },
    ),
    'analysis tools': lambda config, path: load_detector(path, config, 'cpu'),
    'load_detector': lambda config, path: load_detector(path, device='cpu'),
    'converter': lambda config, path: convert_file(path, 'converted.pth'),
    'read_weights': lambda config, path: read_weights(path),
    "mmengine's loader": lambda config, path: CheckpointLoader.load_checkpoint(
        path
    ),
    "mmengine's runner": load_by_mmengine,
    "mmengine's init_cfg": initialise,
    'DetInferencer': lambda config, path: DetInferencer(
        config, path, device='cpu'
    ),
    'DetInferencer without config': lambda config, path: DetInferencer(
        weights=path, device='cpu'
    ),
    'init_detector': lambda config, path: init_detector(
        config, path, device='cpu'
    ),
}


@pytest.mark.parametrize('door', DOORS)
def test_no_door_runs_it(door: str, hostile: str, config: Config) -> None:
    with pytest.raises(UserError, match=REFUSED):
        DOORS[door](config, hostile)


@pytest.fixture
def trained(config: Config, tmp_path: Path) -> dict:
    """What a training of ours has saved."""
    train(
        config,
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    return torch.load(tmp_path / 'run' / 'epoch_1.pth')


@pytest.mark.parametrize('key', ['cfg', 'config'])
def test_a_config_in_a_checkpoint_is_not_run(
    key: str, trained: dict, config: Config, sprung: Path, tmp_path: Path
) -> None:
    """mmengine runs one on resuming, and one where it is given no other."""
    program = f'import os\nos.mkdir({str(sprung)!r})\n'
    trained['meta'][key] = trained['meta']['cfg'] + program
    if key == 'cfg':
        trained['message_hub']['runtime_info']['cfg'] = program
    path = str(tmp_path / 'run' / 'epoch_1.pth')
    torch.save(trained, path)
    train(config, load_from=path, resume=True)
    if key == 'cfg':
        with pytest.raises(ValueError, match='Cannot find the config'):
            DetInferencer(weights=path, device='cpu')
    else:
        DetInferencer(weights=path, device='cpu')


@pytest.mark.parametrize(
    ('text', 'is_plain'),
    [
        ("a = dict(b=[1, -2.5, (None, {'c': True})], d='e')\nf = {1}\n", True),
        ('', True),
        ('import os', False),
        ("a = __import__('os')", False),
        ('a = [b for b in (1, 2)]', False),
        ("a = dict(b=open('c', 'w'))", False),
        ('a = dict(**b)', False),
        ("_base_ = 'other.py'", False),
        ('a.b = 1', False),
        ("a = '{{$HOME:b}}'", False),
        ('if True:\n    a = 1', False),
        ('a = lambda: 1', False),
        ("a = f'{b}'", False),
        ('a =', False),
        ('(' * 5000, False),
        (None, False),
        (b'a = 1', False),
    ],
)
def test_what_is_a_plain_config(text: Any, is_plain: bool) -> None:
    assert is_plain_config(text) is is_plain
