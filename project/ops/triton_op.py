# Copyright (c) mmdetr authors. All rights reserved.
"""The custom op's kernels for GPUs, written in Triton.

CUDA builds of torch include Triton, so a GPU needs no compiler. Triton is
imported when a kernel first runs. With ``TRITON_INTERPRET=1`` in the
environment its interpreter runs them on the CPU, instead of the C++ kernels:
slow, for tests.
"""

import importlib.util
import os
import warnings

import torch
from torch import Tensor

from .custom_op import OP

IS_INTERPRETED = os.environ.get('TRITON_INTERPRET', '0') == '1'


def load() -> str:
    """Register the kernels.

    Returns:
        str: Why they are unavailable, or ''.
    """
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed'
    devices = ['cuda', *(['cpu'] if IS_INTERPRETED else [])]
    torch.library.impl(OP, devices, _attend)
    torch.library.impl(f'{OP}_backward', devices, _attend_backward)
    return ''


def _attend(
    value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    from . import triton_kernels

    inputs = value, spatial_shapes, locations, weights
    _check(*inputs)
    return triton_kernels.forward(*(tensor.contiguous() for tensor in inputs))


def _attend_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    from . import triton_kernels

    _tell_of_atomics()
    inputs = grad_output, value, spatial_shapes, locations, weights
    return triton_kernels.backward(*(tensor.contiguous() for tensor in inputs))


def _check(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> None:
    """Raise for inputs that a kernel would read out of bounds, as in C++.

    The level sizes are on the GPU and not checked, to avoid synchronization.
    """
    got = f'{(*value.shape,)}, {(*locations.shape,)} and {(*weights.shape,)}'
    dims = value.dim(), locations.dim(), weights.dim()
    if dims != (4, 6, 5) or locations.shape[-1] != 2:
        raise RuntimeError(
            'deformable attention takes value (bs, num_keys, num_heads, '
            'channels), locations (bs, num_queries, num_heads, num_levels, '
            'num_points, 2) and weights without the last of these axes, got '
            + got
        )
    images_and_heads = value.shape[::2], locations.shape[:3:2]
    if weights.shape != locations.shape[:-1] or len({*images_and_heads}) > 1:
        raise RuntimeError(
            f'the sizes of value, locations and weights, {got}, do not '
            'belong together'
        )
    if shapes.shape != (locations.shape[3], 2):
        raise RuntimeError(
            f'spatial shapes have to be (height, width) of '
            f'{locations.shape[3]} levels, got {(*shapes.shape,)}'
        )
    computed = torch.promote_types(value.dtype, torch.float32)
    if not value.is_floating_point() or {computed} != {
        locations.dtype,
        weights.dtype,
    }:
        raise RuntimeError(
            'deformable attention takes floating point values, and locations '
            f'and weights in float32 at least, got {value.dtype}, '
            f'{locations.dtype} and {weights.dtype}'
        )


def _tell_of_atomics() -> None:
    """Raise or warn like torch's own ops that are not deterministic."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        'the backward pass of deformable attention in Triton adds up in no '
        'fixed order, and torch.use_deterministic_algorithms(True) is set; '
        'with warn_only=True it goes on'
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, stacklevel=2)
