"""Whole detectors without refiners against mmdet's, which they are then."""

import copy
import sys
from collections.abc import Iterator
from unittest import mock

import mmcv.ops.nms  # noqa: F401
import pytest
import torch
from mmdet.models.layers.transformer import MLP, dino_layers
from mmdet.models.losses import ddq_detr_aux_loss
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import project  # noqa: F401
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

nms_ops = sys.modules['mmcv.ops.nms']  # the function hides the module
DINO = '_base_/models/dino_r50.py'
ALIGN = 'align_detr/align-detr_r50_8xb2-12e_coco.py'
NUM_QUERIES = 30
PADDED = ((128, 192), (120, 128))


def dino_config() -> ConfigDict:
    """mmdet's DINO, whose noise is too small to tell."""
    config = tiny_model_config(DINO, num_queries=NUM_QUERIES)
    config.decoder.num_layers = 3
    config.dn_cfg.update(label_noise_scale=1e-9, box_noise_scale=1e-9)
    return config


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """One of ours and mmdet's, with the same weights, none of them at 0."""
    theirs = dino_config()
    ours = copy.deepcopy(theirs)
    if name == 'ddq':
        theirs.update(type='DDQDETR', dense_topk_ratio=1.5)
        theirs.dqs_cfg = dict(type='nms', iou_threshold=0.8)
        theirs.bbox_head.type = 'DDQDETRHead'
        ours.update(
            theirs, type='HPRDDQDETR', bbox_head=copy.deepcopy(ours.bbox_head)
        )
        ours.bbox_head.type = 'HPRDDQDETRHead'
    else:
        ours.update(type='HPRDETR', use_dn=True)
        ours.bbox_head.type = 'HPRDETRHead'
    # No refiners.
    ours.aux_weights = []
    ours.decoder.bbox_roi_extractor = None
    ours = build_model(ours)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * 0.05)
    return ours, with_weights_of(ours, theirs)


def with_weights_of(ours: nn.Module, theirs: ConfigDict) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = MODELS.build(theirs)
    if isinstance(theirs.decoder, dino_layers.DinoTransformerDecoder):
        # As wide as published; the maintained fork makes it twice as wide.
        dims = theirs.embed_dims
        theirs.decoder.ref_point_head = MLP(2 * dims, dims, dims, 2)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def flat(losses: dict) -> dict[str, Tensor]:
    """A row of numbers for each loss: some are lists, one for each image."""
    return {
        name: torch.stack(value if isinstance(value, list) else [value.sum()])
        for name, value in losses.items()
    }


class DoubleTorch:
    """torch, in which float is double."""

    float = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """mmdet's dense loss asks for float, and the op takes nothing else."""
    original = nms_ops.ext_module.nms

    def nms(boxes: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return original(boxes.float(), scores.float(), **kwargs)

    def encode(boxes: Tensor, num_feats: int = 128) -> Tensor:
        return coordinate_to_encoding(boxes)  # see with_weights_of

    coordinate_to_encoding = dino_layers.coordinate_to_encoding
    torch.set_default_dtype(torch.float64)
    with (
        mock.patch.object(dino_layers, 'coordinate_to_encoding', encode),
        mock.patch.object(nms_ops.ext_module, 'nms', nms),
        mock.patch.object(ddq_detr_aux_loss, 'torch', DoubleTorch()),
    ):
        yield
    torch.set_default_dtype(torch.float32)


def step(model: nn.Module, batch: Tensor, samples: list) -> tuple[dict, dict]:
    """Losses and gradients of a batch."""
    model.train().zero_grad()
    losses = flat(model.loss(batch, samples))
    sum(value.sum() for value in losses.values()).backward()
    gradients = {
        # mmdet may leave a parameter out, which DDP minds.
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return losses, gradients


@pytest.fixture(scope='module', params=['dino', 'ddq'])
def detectors(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    return pair(request.param)


@pytest.mark.parametrize('num_gts', [(3, 2), (0, 4), (4, 0), (0, 0), (20, 2)])
def test_losses_and_gradients(
    detectors: tuple[nn.Module, nn.Module], num_gts: tuple[int, int]
) -> None:
    """Padded points, of equal score, are among the queries."""
    (losses, gradients), (expected, expected_gradients) = (
        step(model.double(), *toy_batch(PADDED, num_gts))
        for model in detectors
    )
    assert losses.keys() == expected.keys()
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-8)
    for name, gradient in expected_gradients.items():
        gap = (gradients[name] - gradient).norm()
        assert gap <= 1e-5 * gradient.norm() + 1e-8, name


def test_detections(detectors: tuple[nn.Module, nn.Module]) -> None:
    check_same_detections(*detectors)


def test_detections_of_align_detr() -> None:
    """It differs from mmdet's DINO in losses alone."""
    config = tiny_model_config(ALIGN)
    theirs = copy.deepcopy(config)
    theirs.type, theirs.bbox_head.type = 'DINO', 'DINOHead'
    for name in ('all_layers_num_gt_repeat', 'alpha', 'gamma', 'tau'):
        del theirs.bbox_head[name]
    theirs.train_cfg = None
    ours = build_model(config)
    check_same_detections(ours, with_weights_of(ours, theirs))


def check_same_detections(ours: nn.Module, theirs: nn.Module) -> None:
    found = []
    for model in (ours, theirs):
        batch, samples = toy_batch(PADDED)
        model = model.double()
        with torch.no_grad():
            results = model.eval().predict(batch, samples)
        found.append([sample.pred_instances for sample in results])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine.scores, expected.scores)
        torch.testing.assert_close(mine.bboxes, expected.bboxes)
        assert mine.labels.equal(expected.labels)
