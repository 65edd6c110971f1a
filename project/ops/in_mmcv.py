# Copyright (c) mmdetr authors. All rights reserved.
"""The backends in mmcv's attention; see :mod:`project.accelerate`."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmcv.ops import multi_scale_deform_attn as mmcv_attention
from mmengine.logging import print_log
from torch import Tensor
from torch.compiler import is_compiling

from .attention import describe, multi_scale_deformable_attention

_NAMES = (
    'multi_scale_deformable_attn_pytorch',
    'MultiScaleDeformableAttnFunction',
)
told: set[str] = set()
"""Types of devices for which the backend has been logged."""
_theirs = mmcv_attention.MultiScaleDeformableAttnFunction


def install() -> None:
    """Replace both functions that mmcv's attention calls."""
    for name, form in zip(_NAMES, (_attend, _Kernel), strict=True):
        setattr(mmcv_attention, name, form)


@contextmanager
def installed() -> Iterator[None]:
    """Install within a ``with`` block."""
    before = {name: getattr(mmcv_attention, name) for name in _NAMES}
    install()
    try:
        yield
    finally:
        for name, form in before.items():
            setattr(mmcv_attention, name, form)


class _Kernel:
    """Replaces mmcv's autograd function for GPUs."""

    @staticmethod
    def apply(
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """Attend; on unknown devices by mmcv's own function."""
        if value.device.type not in ('cpu', 'cuda'):
            return _theirs.apply(
                value,
                spatial_shapes,
                level_start_index,
                sampling_locations,
                attention_weights,
                im2col_step,
            )
        _tell_once(value.device.type)
        return multi_scale_deformable_attention(
            value,
            spatial_shapes,
            level_start_index,
            sampling_locations,
            attention_weights,
        )


def _attend(
    value: Tensor,
    value_spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Replaces mmcv's function in PyTorch."""
    _tell_once(value.device.type)
    num_keys = value_spatial_shapes.prod(1)
    return multi_scale_deformable_attention(
        value,
        value_spatial_shapes,
        num_keys.cumsum(0) - num_keys,
        sampling_locations,
        attention_weights,
    )


def _tell_once(device: str) -> None:
    """Log the backend when it is used for the first time."""
    if device not in told and not is_compiling():
        told.add(device)
        print_log(
            'project.accelerate: MultiScaleDeformableAttention of mmcv runs '
            f'on {describe(device)}.',
            logger='current',
        )
