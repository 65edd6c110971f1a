"""Which weights start alike, as in the official codes.

Their distributions are tested with each detector.
"""

import copy
import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import project  # noqa: F401
from tests.helpers.toy import build_model, tiny_model_config

CLONED = (
    'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    'dn_detr/dn-detr_r50_8xb2-50e_coco-detrex.py',
    'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py',
    'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py',
    'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'h_detr/h-detr_r50_one-stage_8xb2-50e_coco.py',
    'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
)
"""Whose sources clone one layer and draw its matrices anew."""
DRAWN = (
    'align_detr/align-detr_r50_8xb2-12e_coco.py',
    'hpr/hpr-dino_r50_8xb2-12e_coco.py',
)
"""Whose sources draw layer by layer."""
DOUBLE = (
    'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'dn_detr/dn-detr_r50_8xb2-50e_coco-detrex.py',
    'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'hpr/hpr-dino_r50_8xb2-12e_coco.py',
)


@functools.cache
def built(name: str) -> nn.Module:
    return build_model(tiny_model_config(name))


def of_two_layers(
    model: nn.Module,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name in the first layer, the parameter there and in the second."""
    for part in ('encoder', 'decoder'):
        layers = getattr(model, part).layers
        first = dict(layers[0].named_parameters())
        for name, parameter in layers[1].named_parameters():
            yield f'{part}.{name}', first[name], parameter


def is_drawn(tensor: Tensor) -> bool:
    """Whether a tensor is not filled with one number."""
    return tensor.dim() > 0 and tensor.unique().numel() > tensor.numel() // 2


@pytest.mark.parametrize('name', CLONED)
def test_cloned_layers_share_their_biases(name: str) -> None:
    model = built(name)
    drawn = []
    for name, first, second in of_two_layers(model):
        if first.dim() > 1:
            assert not (is_drawn(first) and first.equal(second)), name
        else:
            assert first.equal(second), name
            drawn += [name] * is_drawn(first)
    for part in ('encoder', 'decoder'):
        for layer in ('layers.0.0', 'layers.1'):
            assert f'{part}.ffn.{layer}.bias' in drawn


def test_biases_of_dn_detr() -> None:
    """Those of output projections are 0 by the authors, drawn in detrex."""
    for name, are_drawn in ((CLONED[1], False), (CLONED[2], True)):
        model = built(name)
        assert not model.encoder.layers[0].self_attn.attn.out_proj.bias.any()
        for layer in model.decoder.layers:
            for attention in (layer.self_attn, layer.cross_attn):
                bias = attention.out_proj.bias
                assert bias.any() == are_drawn
                if are_drawn:
                    bound = bias.numel() ** -0.5
                    assert 0.9 * bound < bias.abs().max() <= bound
                    assert is_drawn(attention.v_proj.bias)
                weight = attention.out_proj.weight
                bound = (6 / sum(weight.shape)) ** 0.5
                assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize('name', DRAWN)
def test_layers_of_dino_are_drawn_one_by_one(name: str) -> None:
    model = built(name)
    for name, first, second in of_two_layers(model):
        assert not (is_drawn(first) and first.equal(second)), name


def test_layers_of_anchor_detr_are_copies() -> None:
    model = built(DOUBLE[0])
    for name, first, second in of_two_layers(model):
        assert first.equal(second), name
        assert first.data_ptr() != second.data_ptr(), name


@pytest.mark.parametrize('name', DOUBLE)
def test_precision_of_a_model_that_is_initialised(name: str) -> None:
    """It stays what it was, and the numbers are those of float32."""
    again = copy.deepcopy(built(name)).double()
    again.init_weights()
    expected = dict(built(name).named_parameters())
    for name, parameter in again.named_parameters():
        assert parameter.dtype == torch.float64, name
        if not is_drawn(parameter) or 'sampling_offsets.bias' in name:
            torch.testing.assert_close(
                parameter.float(), expected[name], rtol=0, atol=1e-6
            )
