# Copyright (c) mmdetr authors. All rights reserved.
"""Activation checkpointing changes memory and time, and nothing else."""

import copy
import pickle

import pytest
import torch
from mmdet.models.layers import DetrTransformerEncoderLayer
from torch import Tensor, nn

from project.models.layers.recomputation import recompute_layers

DIM = 16


class CountingLayer(DetrTransformerEncoderLayer):
    """mmdet's layer with dropout, which counts its forward passes."""

    num_calls = 0

    def forward(self, *args, **kwargs) -> Tensor:
        self.num_calls += 1
        return super().forward(*args, **kwargs)


def build_layers(num_layers: int = 3) -> nn.ModuleList:
    torch.manual_seed(0)
    layer_cfg = dict(
        self_attn_cfg=dict(embed_dims=DIM, num_heads=2, attn_drop=0.1),
        ffn_cfg=dict(embed_dims=DIM, feedforward_channels=32, ffn_drop=0.1),
    )
    layers = (CountingLayer(**layer_cfg) for _ in range(num_layers))
    return nn.ModuleList(layers).double()


def run(layers: nn.ModuleList) -> tuple[Tensor, dict[str, Tensor]]:
    """Output of all layers and the gradients of all parameters."""
    torch.manual_seed(1)
    query = torch.randn(2, 5, DIM, dtype=torch.double)
    query_pos = torch.randn(2, 5, DIM, dtype=torch.double)
    for layer in layers:
        query = layer(query, query_pos=query_pos, key_padding_mask=None)
    query.square().sum().backward()
    grads = {name: value.grad for name, value in layers.named_parameters()}
    return query.detach(), grads


def test_same_outputs_gradients_and_names_with_dropout():
    plain, checkpointed = build_layers(), build_layers()
    recompute_layers(checkpointed, 2)

    output, grads = run(plain)
    output_checkpointed, grads_checkpointed = run(checkpointed)

    torch.testing.assert_close(output_checkpointed, output, rtol=0, atol=0)
    torch.testing.assert_close(grads_checkpointed, grads, rtol=0, atol=0)
    assert list(checkpointed.state_dict()) == list(plain.state_dict())
    names = [name for name, _ in plain.named_modules()]
    assert [name for name, _ in checkpointed.named_modules()] == names


def test_recomputes_the_first_layers_in_training_only():
    layers = build_layers()
    recompute_layers(layers, 2)
    run(layers)
    assert [layer.num_calls for layer in layers] == [2, 2, 1]

    run(layers.eval())
    assert [layer.num_calls for layer in layers] == [3, 3, 2]


def test_keeps_fewer_activations():
    def num_saved(layers: nn.ModuleList) -> int:
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()), lambda _: None
        ):
            query = torch.randn(2, 5, DIM, dtype=torch.double)
            for layer in layers:
                query = layer(query, query_pos=None, key_padding_mask=None)
        return sum(saved)

    checkpointed = build_layers()
    recompute_layers(checkpointed, 3)
    assert num_saved(checkpointed) * 5 < num_saved(build_layers())


@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_recomputes_its_own_layers(duplicate):
    layers = build_layers()
    recompute_layers(layers, 3)
    copied = duplicate(layers)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.zero_()

    output, _ = run(copied)

    torch.testing.assert_close(output, run(build_layers())[0])
    assert [layer.num_calls for layer in copied] == [2, 2, 2]
    assert [layer.num_calls for layer in layers] == [0, 0, 0]


@pytest.mark.parametrize('num_layers', [-1, 4])
def test_refuses_more_layers_than_there_are(num_layers):
    with pytest.raises(ValueError, match=f'num_cp={num_layers}.*0 to 3'):
        recompute_layers(build_layers(), num_layers)


def test_batch_norms_count_a_batch_once() -> None:
    """However often it is recomputed, as where a graph is kept."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    recomputed = copy.deepcopy(plain)
    recompute_layers([recomputed], 1)
    images = torch.randn(2, 3, 8, 8)
    for model in (plain, recomputed):
        loss = model(images).square().mean()
        for _ in range(2):
            loss.backward(retain_graph=True)
    torch.testing.assert_close(
        dict(recomputed.named_buffers()), dict(plain.named_buffers())
    )
    assert recomputed[1].num_batches_tracked == 1
    assert recomputed[1].momentum == plain[1].momentum
    for ours, expected in zip(
        recomputed.parameters(), plain.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, expected.grad)
