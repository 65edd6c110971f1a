"""HPR's checkpoints start and resume trainings without its backbone's file."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

import project  # noqa: F401  registers the runner
from project.__main__ import TOOLS
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.utils.errors import UserError
from project.utils.paths import tool_path
from tests.helpers.configs import ROOT
from tests.helpers.training import toy_config

HPR_DINO = ROOT / 'tests' / 'data' / 'configs' / 'overfit_hpr-dino.py'
# Fewer than the 7 of the checkpoint.
CLASSES = ('ring', 'star')


@pytest.fixture
def config(toy_data: Path, tmp_path: Path) -> Path:
    """HPR-DINO on the shapes, starting from a file that is not there."""
    cfg = toy_config(toy_data, tmp_path / 'unused', HPR_DINO)
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint='backbone_pth/backbone.pth'
    )
    cfg.classes = SHAPE_CLASSES
    cfg.merge_from_dict(
        {
            'model.num_queries': 10,
            'model.test_cfg.max_per_img': 10,
            'train_cfg': dict(max_epochs=1, val_interval=9),
            'param_scheduler': [],
            'default_hooks.checkpoint': dict(interval=1, max_keep_ckpts=2),
            'optim_wrapper.optimizer.lr': 0.0,
        }
    )
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        folder = 'train' if split == 'train' else 'val'
        dataset.ann_file = f'annotations/{folder}.json'
        dataset.data_prefix = dict(img=f'{folder}/')
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = str(
            toy_data / 'annotations' / 'val.json'
        )
    path = tmp_path / 'my config.py'
    cfg.dump(path)
    return path


def train(config: Path, work_dir: Path, **options: Any) -> dict:
    """Train an epoch without learning; return the weights."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(work_dir=str(work_dir), **options))
    cfg.experiment_name = work_dir.name
    return RUNNERS.build(cfg).train().state_dict()


def log_of(work_dir: Path) -> str:
    return ''.join(path.read_text() for path in work_dir.glob('*/*.log'))


def test_the_message_leads_from_one_training_to_the_next(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'backbone\.pth, from which'):
        train(config, tmp_path / 'none')
    old = tmp_path / 'old'
    train(config, old, **{'model.backbone.init_cfg': None})
    checkpoint = old / 'epoch_1.pth'
    weights = torch.load(checkpoint)['state_dict']

    # Another number of classes: the message tells the command.
    new_classes = dict(load_from=str(checkpoint), classes=CLASSES)
    with pytest.raises(UserError, match='for 7 classes and the') as caught:
        train(config, tmp_path / 'refused', **new_classes)
    (command,) = re.findall(r'with python (.*), and set', str(caught.value))
    module, name, *argv = shlex.split(command)[1:]
    assert module == 'project'
    runpy.run_path(str(tool_path(TOOLS[name])))['main'](argv)

    # What it writes starts a training, and the backbone is the old one.
    tuned = train(
        config, tmp_path / 'new', **{**new_classes, 'load_from': 'START.pth'}
    )
    renewed = {k for k in weights if weights[k].shape != tuned[k].shape}
    assert len(renewed) == 3 * 2 * 3 + 2 + 1  # layers, first stage, labels
    for name in weights.keys() - renewed:
        torch.testing.assert_close(tuned[name], weights[name])
    line = 'backbone_pth/backbone.pth, from which model.backbone was to start'
    assert log_of(tmp_path / 'new').count(line) == 1

    # So does the same file for the old classes, and resuming it.
    resumed = {'resume': True, 'train_cfg.max_epochs': 2}
    train(config, old, **resumed)
    assert (old / 'epoch_2.pth').is_file()
    assert log_of(old).count(line) == 1
