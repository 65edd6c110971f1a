"""Inputs of deformable attention, and what it makes of them."""

import torch
from mmcv.ops.multi_scale_deform_attn import (
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

from project.ops import multi_scale_deformable_attention


def make_inputs(
    levels,
    queries,
    heads,
    channels,
    points,
    images,
    dtype=torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some sampling points lie outside of the map."""
    shapes = torch.tensor(levels)
    num_keys = int(shapes.prod(1).sum())
    generator = torch.Generator().manual_seed(0)
    kwargs = dict(generator=generator, dtype=torch.float64)
    value = torch.randn(images, num_keys, heads, channels, **kwargs)
    grid = images, queries, heads, len(levels), points
    locations = torch.rand(*grid, 2, **kwargs) * 1.6 - 0.3
    weights = torch.rand(grid, **kwargs)
    return value.to(dtype), shapes, locations.to(dtype), weights.to(dtype)


def make_border_inputs(
    height, width, dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points on the pixels, between them and on the borders of a map."""
    rows = torch.arange(-2, height + 3, dtype=torch.float64) / height
    columns = torch.arange(-2, width + 3, dtype=torch.float64) / width
    half = torch.tensor([0.5 / width, 0.5 / height], dtype=torch.float64)
    grid = torch.cartesian_prod(columns, rows)
    locations = torch.cat([grid, grid + half])
    locations = locations.reshape(1, -1, 1, 1, 1, 2).to(dtype)
    value = torch.randn(1, height * width, 1, 9, dtype=dtype)
    weights = torch.ones(locations.shape[:-1], dtype=dtype)
    return value, torch.tensor([[height, width]]), locations, weights


def attend(value, shapes, locations, weights, **kwargs) -> Tensor:
    start = shapes.prod(1).cumsum(0) - shapes.prod(1)
    return multi_scale_deformable_attention(
        value, shapes, start, locations, weights, **kwargs
    )


def attend_reference(value, shapes, locations, weights) -> Tensor:
    return multi_scale_deformable_attn_pytorch(
        value, shapes.tolist(), locations, weights
    )


def values_and_gradients(function, inputs, grad=None) -> list[Tensor]:
    value, shapes, locations, weights = inputs
    leaves = [t.clone().requires_grad_() for t in (value, locations, weights)]
    output = function(leaves[0], shapes, *leaves[1:])
    if grad is None:
        grad = torch.linspace(-1, 1, output.numel(), dtype=output.dtype)
    output.backward(grad.reshape(output.shape))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def scattered(tensor: Tensor) -> Tensor:
    """The same, with strides the other way round."""
    axes = tuple(range(tensor.dim()))[::-1]
    return tensor.permute(axes).contiguous().permute(axes)


class Attention(torch.nn.Module):
    def forward(self, value, shapes, locations, weights):
        return attend(value * 2, shapes, locations, weights) + 1
