"""The loss of the validation images, as training would compute it."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import RUNNERS

from tests.helpers.configs import ROOT
from tests.helpers.training import toy_config

TOY_DN = ROOT / 'tests' / 'data' / 'configs' / 'toy_dn.py'
HPR_DINO = ROOT / 'tests' / 'data' / 'configs' / 'overfit_hpr-dino.py'
HOOK = dict(type='ValidationLossHook')


def scalars(work_dir: Path) -> list[dict]:
    """The logged validations."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry for entry in entries if 'coco/bbox_mAP' in entry]


@pytest.fixture(scope='module')
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, the best of which is chosen by this loss."""
    work_dir = tmp_path_factory.mktemp('trained')
    cfg = toy_config(
        toy_data,
        work_dir,
        train_cfg__val_interval=1,
        default_hooks__checkpoint__save_best='val_loss',
        default_hooks__checkpoint__rule='less',
        custom_hooks=[HOOK],
    )
    RUNNERS.build(cfg).train()
    return work_dir


def test_it_falls_and_is_logged(trained: Path) -> None:
    first, second = scalars(trained)
    assert 0 < second['val_loss'] < first['val_loss']
    assert second['val_loss_cls'] > 0
    assert list(trained.glob('best_val_loss_epoch_2.pth'))


def test_it_is_the_loss_of_training(
    trained: Path, toy_data: Path, tmp_path: Path
) -> None:
    """Of the same images, in a training that learns nothing."""
    cfg = toy_config(
        toy_data,
        tmp_path,
        train_cfg__max_epochs=1,
        train_cfg__val_interval=1,
        optim_wrapper__optimizer__lr=0.0,
        optim_wrapper__optimizer__weight_decay=0.0,
        custom_hooks=[HOOK],
        load_from=str(trained / 'epoch_2.pth'),
    )
    train, val = cfg.train_dataloader, cfg.val_dataloader
    train.batch_size = val.batch_size = 1
    train.dataset.ann_file = val.dataset.ann_file
    train.dataset.data_prefix = val.dataset.data_prefix
    RUNNERS.build(cfg).train()
    (entry,) = scalars(tmp_path)
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [x['loss'] for x in entries if 'loss' in x]
    assert len(losses) == 5
    # The log smooths over ten steps: the last entry is the mean of all.
    assert entry['val_loss'] == pytest.approx(losses[-1], rel=1e-5)


@pytest.mark.parametrize('config', [TOY_DN])
def test_training_goes_on_as_without_it(
    config: Path, toy_data: Path, tmp_path: Path
) -> None:
    """Noise, dropout and the model's mode are those of before."""
    weights = []
    for name, hooks in (('with', [HOOK]), ('without', [])):
        cfg = toy_config(
            toy_data,
            tmp_path / name,
            config,
            train_cfg__max_epochs=2,
            custom_hooks=hooks,
        )
        weights.append(RUNNERS.build(cfg).train().state_dict())
    first, second = weights
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [entry['val_loss'] for entry in scalars(tmp_path / 'with')]
    assert losses[1] < losses[0]


def test_a_pipeline_without_annotations(
    trained: Path, toy_data: Path, tmp_path: Path
) -> None:
    """As those of HPR: the loss is the same."""
    losses = []
    for name, is_left_out in (('as they are', False), ('without', True)):
        cfg = toy_config(
            toy_data,
            tmp_path / name,
            train_cfg__max_epochs=1,
            train_cfg__val_interval=1,
            custom_hooks=[HOOK],
            load_from=str(trained / 'epoch_2.pth'),
        )
        dataset = cfg.val_dataloader.dataset
        if is_left_out:
            dataset.pipeline = [
                step
                for step in dataset.pipeline
                if step['type'] != 'LoadAnnotations'
            ]
        # Boxes have to be resized with the images.
        resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
        dataset.pipeline.insert(1, resize)
        RUNNERS.build(cfg).train()
        (entry,) = scalars(tmp_path / name)
        losses.append(entry['val_loss'])
    assert losses[0] > 0
    assert losses[1] == losses[0]
