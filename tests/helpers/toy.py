"""Shipped configs at a size that a test can afford."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tests.helpers.configs import read_config


def toy_model_config(config: str | Path, **changes) -> ConfigDict:
    """The model of a shipped config, narrow, with few layers and queries."""
    model = copy.deepcopy(read_config(str(config)).model)
    model.backbone.init_cfg = None
    if model.backbone.type == 'SwinTransformer':
        heads = model.backbone.num_heads
        model.backbone.depths = (2, 2, 2, 2)
        model.backbone.num_heads = [num // heads[0] for num in heads]
        model.backbone.embed_dims //= heads[0]
        model.neck.in_channels = [
            width // heads[0] for width in model.neck.in_channels
        ]
    elif (
        model.backbone.type.endswith('ResNet')
        and 'base_channels' not in model.backbone
    ):
        model.backbone.base_channels = 16  # for 64
        model.neck.in_channels = [
            width // 4 for width in model.neck.in_channels
        ]
    if model.backbone.type == 'TimmBackbone':
        pytest.importorskip('timm')
        model.backbone.pretrained = False
    model.num_queries = min(model.num_queries, 12)
    if model.get('one2many'):
        model.one2many.num_queries = 20
    denoising = model.get('dn_cfg', {}).get('group_cfg', {})
    if 'num_dn_queries' in denoising:
        denoising.num_dn_queries = 12
    for coder in (model.encoder, model.decoder):
        coder.num_layers = 2
        if 'num_cp' in coder:
            coder.num_cp = min(coder.num_cp, 2)
        coder.layer_cfg.ffn_cfg.feedforward_channels = 32
        if 'dy_conv_cfg' in coder.layer_cfg:
            coder.layer_cfg.dy_conv_cfg.feat_channels = 4
    if 'all_layers_num_gt_repeat' in model.bbox_head:
        # Of the two decoder layers and the encoder.
        model.bbox_head.all_layers_num_gt_repeat = [2, 1, 2]
    limit = model.num_queries * model.bbox_head.num_classes
    model.test_cfg.max_per_img = min(model.test_cfg.max_per_img, limit)
    model.update(changes)
    return model


def tiny_model_config(config: str | Path, **changes) -> ConfigDict:
    """The same on a ResNet-18 for a ResNet-50, norms and all trained."""
    model = toy_model_config(config, **changes)
    model.backbone.update(depth=18, frozen_stages=-1, norm_cfg=dict(type='BN'))
    model.neck.in_channels = [x // 4 for x in model.neck.in_channels]
    return model


def build_model(config: ConfigDict, seed: int = 0) -> nn.Module:
    """Build and initialise a detector."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config)
        model.init_weights()
    return model


def toy_batch(
    img_shapes: tuple[tuple[int, int], ...] = ((64, 96), (64, 64)),
    num_gts: tuple[int, ...] = (3, 2),
    num_classes: int = 80,
    seed: int = 0,
) -> tuple[Tensor, list[DetDataSample]]:
    """Random images, padded to one shape, with random objects."""
    generator = torch.Generator().manual_seed(seed)
    batch_shape = tuple(max(sizes) for sizes in zip(*img_shapes, strict=True))
    batch = torch.zeros(len(img_shapes), 3, *batch_shape)
    samples = []
    for image, (height, width), count in zip(
        batch, img_shapes, num_gts, strict=True
    ):
        image[:, :height, :width] = torch.randn(
            3, height, width, generator=generator
        )
        size = torch.tensor([width, height])
        corner = torch.rand(count, 2, generator=generator) * 0.5 * size
        extent = (torch.rand(count, 2, generator=generator) * 0.4 + 0.1) * size
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width),
                batch_input_shape=batch_shape,
                ori_shape=(height * 2, width * 2),
                scale_factor=(0.5, 0.5),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + extent], 1),
            labels=torch.randint(num_classes, (count,), generator=generator),
        )
        samples.append(sample)
    return batch, samples


def check_training_step(
    model: nn.Module, batch: Tensor, samples: list[DetDataSample]
) -> dict[str, Tensor]:
    """Finite losses, and a finite gradient for every parameter.

    One without a gradient is what DDP would wait for.
    """
    model.train().zero_grad()
    losses = model.loss(batch, samples)
    total, logged = model.parse_losses(losses)
    total.backward()
    assert all(value.isfinite() for value in logged.values()), logged
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    return losses


def check_detections(
    model: nn.Module, batch: Tensor, samples: list[DetDataSample]
) -> list[InstanceData]:
    """As many as asked for at the most, best first, within their image."""
    with torch.no_grad():
        found = model.eval().predict(batch, samples)
    for sample in found:
        height, width = sample.ori_shape
        instances = sample.pred_instances
        assert 0 < len(instances) <= model.test_cfg.max_per_img
        assert (instances.scores.diff() <= 0).all()
        assert (instances.bboxes >= 0).all()
        limit = torch.tensor([width, height] * 2) + 1e-3
        assert (instances.bboxes <= limit).all()
    return [sample.pred_instances for sample in found]
