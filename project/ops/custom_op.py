# Copyright (c) mmdetr authors. All rights reserved.
"""Deformable attention as a custom op of torch.

The op is known to ``torch.compile`` and ``torch.export`` and has a gradient
on every device that has kernels for it: ``csrc/`` has those of the CPU,
:mod:`.triton_kernels` those of GPUs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

OP = 'mmdetr::deformable_attention'
_INPUTS = (
    'Tensor value, Tensor spatial_shapes, Tensor sampling_locations, '
    'Tensor attention_weights'
)

torch.library.define(OP, f'({_INPUTS}) -> Tensor')
torch.library.define(
    f'{OP}_backward',
    f'(Tensor grad_output, {_INPUTS}) -> (Tensor, Tensor, Tensor)',
)


def attend(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    level_shapes: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Run the custom op; see ``multi_scale_deformable_attention``."""
    return torch.ops.mmdetr.deformable_attention(
        value, spatial_shapes, sampling_locations, attention_weights
    )


@torch.library.register_fake(OP)
def _fake(
    value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    bs, _, num_heads, channels = value.shape
    return value.new_empty(bs, locations.shape[1], num_heads * channels)


@torch.library.register_fake(f'{OP}_backward')
def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.mmdetr.deformable_attention_backward(
        grad_output, *ctx.saved_tensors
    )
    return grads[0], None, *grads[1:]


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        'Deformable attention as a custom op has no second derivative: set '
        'MMDETR_ATTENTION=pytorch.'
    )


torch.library.register_autograd(OP, _backward, setup_context=_keep_inputs)
torch.library.register_autograd(f'{OP}_backward', _refuse)
