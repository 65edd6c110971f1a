"""Every shipped config builds, trains a step and detects, at toy size."""

import functools
import re
from pathlib import Path

import pytest
from mmengine.config import Config

import project  # noqa: F401
from tests.helpers.configs import CONFIGS, read_config
from tests.helpers.toy import (
    build_model,
    check_detections,
    check_training_step,
    toy_batch,
    toy_model_config,
)

NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.parts
)


@pytest.mark.parametrize('name', NAMES)
def test_config_trains_and_detects(name: str) -> None:
    # Many configs differ in their schedule or data only.
    train_and_detect(Config(dict(model=toy_model_config(Path(name)))).dump())


@functools.cache
def train_and_detect(text: str) -> None:
    config = Config.fromstring(text, '.py').model
    model = build_model(config)
    num_classes = config.bbox_head.num_classes
    batch, samples = toy_batch(num_classes=num_classes)
    check_training_step(model, batch, samples)
    wanted = min(config.test_cfg.max_per_img, 12 * num_classes)
    for found in check_detections(model, batch, samples):
        assert len(found) == wanted


@pytest.mark.parametrize('name', NAMES)
def test_config_is_complete(name: str) -> None:
    """What a run needs besides the model is there."""
    config = read_config(name)
    assert config.custom_imports.imports == ['project']
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper'):
        assert key in config
    loop = config.train_cfg
    by_epoch = loop.type == 'EpochBasedTrainLoop'
    total = loop.max_epochs if by_epoch else loop.max_iters
    assert config.param_scheduler[-1].by_epoch == by_epoch
    assert config.param_scheduler[-1].end == total
    if not by_epoch:
        # A sampler that ends is started anew by the loop.
        assert config.train_dataloader.sampler.get('shuffle', True)
        assert not config.default_hooks.checkpoint.by_epoch
        assert not config.log_processor.by_epoch
    if 'xb' in name:
        gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
        assert config.train_dataloader.batch_size == batch
        assert config.auto_scale_lr.base_batch_size == gpus * batch
        (schedule,) = re.findall(r'-(\d+[ek])_', name)
        if schedule.endswith('k'):
            assert not by_epoch
            assert schedule == f'{total / 1000:g}k'
        else:
            # 7500 iterations of 16 images are called an epoch.
            epochs = total if by_epoch else total * gpus * batch // 120000
            assert schedule == f'{epochs}e'


def test_metafile_lists_every_config() -> None:
    import yaml

    paths = list(CONFIGS.rglob('metafile.yml'))
    assert paths
    for path in paths:
        models = yaml.safe_load(path.read_text())['Models']
        listed = {Path(model['Config']).name for model in models}
        shipped = {config.name for config in path.parent.glob('*.py')}
        assert listed == shipped
        for model in models:
            assert model['Name'] == Path(model['Config']).stem
            # MIM calls the file by what follows the last slash.
            assert model.get('Weights', '/a.pth').endswith('.pth')
            about = model['Metadata']
            name = Path(model['Config']).relative_to('configs')
            config = read_config(str(name))
            assert about.get('Iterations') == config.train_cfg.get('max_iters')
            words = [f'-{about["Epochs"]}e_']
            if 'Iterations' in about:
                words.append(f'-{about["Iterations"] / 1000:g}k_')
            assert any(word in model['Name'] for word in words)
