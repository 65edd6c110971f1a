"""Every shipped config builds, trains a step and detects, at toy size."""

import re
from pathlib import Path

import pytest
import torch

import project  # noqa: F401
from tests.helpers.configs import CONFIGS
from tests.helpers.toy import build_model, toy_batch, toy_model_config

NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.parts
)


@pytest.mark.parametrize('name', NAMES)
def test_config_trains_and_detects(name: str) -> None:
    config = toy_model_config(Path(name))
    model = build_model(config)
    num_classes = config.bbox_head.num_classes
    batch, samples = toy_batch(num_classes=num_classes)

    losses = model.loss(batch, samples)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert not without

    model.eval()
    with torch.no_grad():
        found = model.predict(batch, samples)
    wanted = min(config.test_cfg.max_per_img, 12 * num_classes)
    for sample in found:
        assert len(sample.pred_instances) == wanted
        boxes = sample.pred_instances.bboxes
        height, width = sample.ori_shape
        limit = torch.tensor([width, height] * 2) + 1e-3
        assert (boxes >= 0).all()
        assert (boxes <= limit).all()


@pytest.mark.parametrize('name', NAMES)
def test_config_is_complete(name: str) -> None:
    """What a run needs besides the model is there."""
    from mmengine.config import Config

    config = Config.fromfile(CONFIGS / name)
    assert config.custom_imports.imports == ['project']
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper'):
        assert key in config
    loop = config.train_cfg
    by_epoch = loop.type == 'EpochBasedTrainLoop'
    total = loop.max_epochs if by_epoch else loop.max_iters
    assert config.param_scheduler[-1].by_epoch == by_epoch
    assert config.param_scheduler[-1].end == total
    if not by_epoch:
        assert config.train_dataloader.sampler.type == 'InfiniteSampler'
        assert not config.default_hooks.checkpoint.by_epoch
        assert not config.log_processor.by_epoch
    if 'xb' in name:
        gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
        assert config.train_dataloader.batch_size == batch
        assert config.auto_scale_lr.base_batch_size == gpus * batch
        # 7500 iterations of 16 images are called an epoch.
        epochs = total if by_epoch else total * gpus * batch // 120000
        assert f'-{epochs}e_' in name


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
            epochs = model['Metadata']['Epochs']
            assert f'-{epochs}e_' in model['Name']
