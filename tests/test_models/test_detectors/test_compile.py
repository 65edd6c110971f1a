"""torch.compile, TorchScript's tracing and mmdet's count of operations."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.optim import OptimWrapper
from torch import nn

import project  # noqa: F401
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

CONFIGS = {
    'anchor': 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'deta': 'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'dn': 'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    'dn-deformable': 'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py',
    'dn-encoder': (
        'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py'
    ),
    'h': 'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'rank': 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
    'hpr-dino': '_base_/models/hpr_dino_r50.py',
    'hpr-align': '_base_/models/hpr_align-detr_r50.py',
    'hpr-ddq': '_base_/models/hpr_ddq_r50.py',
}


def build(name: str) -> nn.Module:
    config = tiny_model_config(CONFIGS[name])
    if name.startswith('hpr'):
        config.decoder.layer_cfg.dy_conv_cfg.feat_channels = 8
    return build_model(config)


def train_step(model: nn.Module, compiled: bool) -> tuple[dict, dict]:
    """A step as mmengine's Runner takes it, and the gradients."""
    torch.manual_seed(0)  # of the noise, where there is one
    batch, samples = toy_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = model.train_step
    if compiled:
        torch.compiler.reset()
        step = torch.compile(step, backend='eager')
    logged = step(
        dict(inputs=batch, data_samples=samples), OptimWrapper(optimizer)
    )
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return logged, gradients


@pytest.mark.slow
@pytest.mark.parametrize('name', list(CONFIGS))
def test_a_compiled_training_step_is_the_same(name: str) -> None:
    model = build(name).train()
    model.data_preprocessor = nn.Identity()
    model.data_preprocessor.forward = lambda data, training: data
    twin = copy.deepcopy(model)
    expected, gradients = train_step(model, compiled=False)
    logged, found = train_step(twin, compiled=True)
    torch.testing.assert_close(logged, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        if gradient is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-3, atol=1e-5, msg=name
            )


def flops(model: nn.Module) -> float:
    """As mmdet's get_flops.py counts: images alone, traced."""
    batch, samples = toy_batch(((64, 96),), (1,))
    model.eval().forward = partial(model.forward, data_samples=samples)
    outputs = get_model_complexity_info(
        model, None, inputs=batch, show_table=False, show_arch=False
    )
    return outputs['flops']


@pytest.mark.parametrize('name', ['deta', 'dn'])
def test_operations_are_counted(name: str) -> None:
    assert flops(build(name)) > 1e6


@pytest.mark.slow
@pytest.mark.parametrize('name', list(CONFIGS))
def test_operations_of_every_detector_are_counted(name: str) -> None:
    assert flops(build(name)) > 1e6


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize('name', list(CONFIGS))
def test_detection_is_one_graph_for_all_sizes(name: str) -> None:
    """Without a break, and compiled anew at most twice.

    Once for sizes that vary, and in Anchor DETR, which sums over the longer
    side first, once for tall images. The toy's sizes are near each other
    since torch guards which convolutions have inputs of at most 20,480
    numbers; those of a ResNet-50 have more at any usual size.
    """
    model = build(name).eval()
    torch.compiler.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model.detect, backend=backend, fullgraph=True)
    for shape in ((120, 160), (96, 131), (131, 96), (100, 140)):
        images = torch.rand(1, 3, *shape)
        torch.testing.assert_close(compiled(images), model.detect(images))
    assert len(graphs) <= 3
