# Copyright (c) mmdetr authors. All rights reserved.
"""mmdet's own detectors compute the same on our backends."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from project.ops import backend_name, in_mmcv
from project.ops.attention import obstacle_of

pytestmark = pytest.mark.skipif(
    bool(obstacle_of('cpp', 'cpu')), reason='not compiled here'
)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the log says."""
    lines = []
    monkeypatch.setattr(in_mmcv, 'told', set())
    monkeypatch.setattr(
        in_mmcv, 'print_log', lambda line, logger: lines.append(line)
    )
    return lines


def run(model: nn.Module, compute: Callable[[], list[Tensor]]) -> dict:
    """Outputs and the gradients of all parameters."""
    model.zero_grad()
    torch.manual_seed(0)  # of dropout and denoising queries
    outputs = compute()
    sum(output.sum() for output in outputs).backward()
    results = {f'output {i}': o.detach() for i, o in enumerate(outputs)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            results[name] = parameter.grad.clone()
    return results


def check_same(stock: dict, accelerated: dict) -> None:
    assert stock.keys() == accelerated.keys()
    for name, expected in stock.items():
        error = (accelerated[name] - expected).norm()
        assert error <= 1e-6 * expected.norm() + 1e-9, name


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    """mmdet makes some tensors of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(cfg: dict) -> nn.Module:
    """Build a part of a model, its offsets not those of all queries alike."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if 'sampling_offsets' in name or 'attention_weights' in name:
            nn.init.normal_(parameter, std=0.1)
    return model.double()  # mmcv makes some parameters float32


@pytest.mark.parametrize(
    'path',
    [
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    ],
)
def test_detectors_have_the_same_losses_and_gradients(said, path):
    cfg = get_config(f'mmdet::{path}').model
    cfg.backbone.init_cfg = None
    for part in (cfg.encoder, cfg.decoder):
        part.num_layers = 1
    cfg.num_queries = 50
    if 'dn_cfg' in cfg:
        cfg.dn_cfg.group_cfg.num_dn_queries = 5
    model = build(cfg).train()
    packed = demo_mm_inputs(1, [[3, 96, 128]], num_items=[3])
    data = model.data_preprocessor(packed, training=True)
    images = data['inputs'].double()
    for sample in data['data_samples']:
        truth = sample.gt_instances
        truth.bboxes = truth.bboxes.double()

    def losses() -> list[Tensor]:
        found = model.loss(images, data['data_samples'])
        return [
            part
            for value in found.values()
            for part in (value if isinstance(value, list) else [value])
        ]

    stock = run(model, losses)
    assert said == []
    with in_mmcv.installed():
        check_same(stock, run(model, losses))
    assert said == [
        'project.accelerate: MultiScaleDeformableAttention of mmcv runs on '
        f'{backend_name("cpu")}; not mmcv: it is a kernel for GPUs.'
    ]


def test_the_pixel_decoder_of_mask2former_has_the_same_maps(said):
    path = 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
    head = get_config(f'mmdet::{path}').model.panoptic_head
    cfg = head.pixel_decoder
    cfg.update(
        in_channels=[32, 64, 64, 64],
        strides=[4, 8, 16, 32],
        feat_channels=head.feat_channels,
        out_channels=head.out_channels,
    )
    cfg.encoder.num_layers = 2
    model = build(cfg).eval()
    sides = zip((32, 64, 64, 64), (24, 12, 6, 3), strict=True)
    features = [
        torch.randn(2, channels, side, side + 2) for channels, side in sides
    ]

    def maps() -> list[Tensor]:
        mask_features, multi_scale = model(features)
        return [mask_features.square(), *(m.square() for m in multi_scale)]

    stock = run(model, maps)
    with in_mmcv.installed():
        check_same(stock, run(model, maps))
    assert len(said) == 1


def test_nothing_is_changed_without_the_import():
    """Importing the package alone is not asking for it."""
    code = (
        'import project\n'
        'from mmcv.ops import multi_scale_deform_attn as mmcv_attention\n'
        'form = mmcv_attention.multi_scale_deformable_attn_pytorch\n'
        'print(form.__module__)\n'
        'import project.accelerate\n'
        'form = mmcv_attention.multi_scale_deformable_attn_pytorch\n'
        'print(form.__module__)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.stdout.split() == [
        'mmcv.ops.multi_scale_deform_attn',
        'project.ops.in_mmcv',
    ]
