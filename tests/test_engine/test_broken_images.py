"""An image that cannot be read is named, and some may be skipped."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import project  # noqa: F401
from project.datasets.broken_images import name_broken_images
from project.engine import DETRRunner
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.training import toy_config

TRAIN_IMAGES = 8


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    init_default_scope('mmdet')
    return shutil.copytree(toy_data, tmp_path / 'data')


def image(data: Path, index: int, split: str = 'train') -> Path:
    return data / split / f'{index:06d}.png'


def loader(data: Path, num_workers: int, **options: int):
    """The training's dataloader, each image once an epoch."""
    cfg = resolve_config(toy_config(data, data.parent / 'work'))
    config = dict(
        cfg.train_dataloader,
        num_workers=num_workers,
        persistent_workers=False,
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_sampler=None,
    )
    built = Runner.build_dataloader(config, seed=0)
    name_broken_images(built.dataset, **options)
    return built


@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_image_is_named(data: Path, num_workers: int) -> None:
    image(data, 5).write_bytes(b'')
    with pytest.raises(UserError) as caught:
        list(loader(data, num_workers))
    message = str(caught.value)
    assert f'The image {image(data, 5)} cannot be read: ' in message
    assert 'max_broken_images in the config (it is 0)' in message
    assert '\n' not in message


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_stated_number_is_skipped(data: Path, num_workers: int) -> None:
    for index in (2, 5):
        image(data, index).unlink()
    built = loader(data, num_workers, max_broken=2)
    broken = {str(image(data, index)) for index in (2, 5)}
    for _ in range(3):  # the same two in each epoch, by new workers
        batches = list(built)
        assert len(batches) == TRAIN_IMAGES
        paths = {batch['data_samples'][0].img_path for batch in batches}
        assert not paths & broken
    image(data, 7).write_text('no image')
    with pytest.raises(UserError, match='after 2 others') as caught:
        [list(built) for _ in range(3)]
    assert '\n' not in str(caught.value)


def test_testing_needs_all_images(data: Path) -> None:
    image(data, 3, 'val').write_bytes(b'')
    cfg = resolve_config(toy_config(data, data.parent / 'work'))
    built = Runner.build_dataloader(cfg.val_dataloader)
    name_broken_images(built.dataset, max_broken=5)
    with pytest.raises(UserError, match=r'000003\.png cannot be read: '):
        list(built)


@pytest.mark.parametrize('number', [-1, 1.5, '3', True])
def test_a_number_that_is_none(data: Path, number: object) -> None:
    with pytest.raises(UserError, match=r'max_broken_images=.* 0 or more'):
        loader(data, 0, max_broken=number)


def test_a_training_skips_what_breaks_after_the_checks(data: Path) -> None:
    """Through the runner, wrappers and all."""
    cfg = toy_config(
        data,
        data.parent / 'work',
        max_broken_images=1,
        train_cfg__max_epochs=1,
        train_dataloader__num_workers=1,
    )
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dataset
    )
    runner = DETRRunner.from_cfg(cfg)

    class BreakOne(Hook):
        def before_train(self, runner: Runner) -> None:
            image(data, 4).write_bytes(b'')

    runner.register_hook(BreakOne())
    runner.train()
    log = next((data.parent / 'work').glob('*/*.log')).read_text()
    assert f'Skipped the image {image(data, 4)}' in log
    scalars = next((data.parent / 'work').glob('*/vis_data/scalars.json'))
    losses = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any('loss' in entry for entry in losses)
