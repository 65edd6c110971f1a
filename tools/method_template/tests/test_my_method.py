"""MyMethod trains and detects, and its parts do what they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from my_method import MyMethod, MyMethodLoss
from torch import Tensor

CONFIG = Path(__file__).parents[1] / 'configs/my-method_r50_8xb2-12e_coco.py'


def build(**changes: Any) -> MyMethod:
    """The model of the config, at a size for a test."""
    model = Config.fromfile(CONFIG).model
    model.backbone.update(depth=18, frozen_stages=-1, init_cfg=None)
    model.backbone.norm_cfg = dict(type='BN')
    model.neck.in_channels = [128, 256, 512]
    model.encoder.num_layers = model.decoder.num_layers = 2
    model.num_queries = model.one2many.num_queries = 20
    model.update(changes)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(model)
        built.init_weights()
    return built


def batch() -> tuple[Tensor, list[DetDataSample]]:
    """An image of 64 pixels with two objects."""
    torch.manual_seed(0)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(64, 64),
            batch_input_shape=(64, 64),
            ori_shape=(64, 64),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 50]]),
        labels=torch.tensor([1, 7]),
    )
    return torch.randn(1, 3, 64, 64), [sample]


def test_every_parameter_learns() -> None:
    """A training step has finite losses and all gradients."""
    model = build().train()
    loss, logged = model.parse_losses(model.loss(*batch()))
    loss.backward()
    assert all(value.isfinite() for value in logged.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_the_best_detections_come_first() -> None:
    """Detections are sorted by score."""
    with torch.no_grad():
        (sample,) = build().eval().predict(*batch())
    scores = sample.pred_instances.scores
    assert len(scores) == 100
    assert (scores.diff() <= 0).all()


def test_the_content_reaches_the_detections() -> None:
    """The learned vector changes what is detected."""
    scores = []
    for scale in (0.0, 1.0):
        model = build(content_scale=scale).eval()
        with torch.no_grad():
            (sample,) = model.predict(*batch())
        scores.append(sample.pred_instances.scores)
    assert not torch.equal(*scores)


@pytest.mark.parametrize(('shift', 'expected'), [(0.0, 0.0), (0.1, 0.5)])
def test_the_loss_is_relative(shift: float, expected: float) -> None:
    """A shift by half the width of an object counts 0.5."""
    target = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    pred = target + torch.tensor([shift, 0, 0, 0])
    loss = MyMethodLoss(reduction='sum')(pred, target)
    torch.testing.assert_close(loss, torch.tensor(expected))
