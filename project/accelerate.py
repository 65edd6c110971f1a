# Copyright (c) mmdetr authors. All rights reserved.
"""Runs mmdet's own detectors on the backends of :mod:`project.ops`.

Importing this module, for which one line in any config is enough, puts them
under mmcv's ``MultiScaleDeformableAttention``::

    custom_imports = dict(imports=['project.accelerate'])

Deformable DETR, DINO, DDQ, Grounding DINO and Mask2Former of mmdet compute the
same then, faster on a CPU. Nothing is changed without the import.
"""

from mmcv.ops import multi_scale_deform_attn as mmcv_attention
from mmengine.logging import print_log
from torch import Tensor
from torch.compiler import is_compiling

from project.ops import describe, multi_scale_deformable_attention

_told: set[str] = set()
_theirs = mmcv_attention.MultiScaleDeformableAttnFunction


def install() -> None:
    """Put the backends in the place of both forms that mmcv calls."""
    mmcv_attention.multi_scale_deformable_attn_pytorch = _attend
    mmcv_attention.MultiScaleDeformableAttnFunction = _Kernel


class _Kernel:
    """Called as mmcv's autograd function for GPUs."""

    @staticmethod
    def apply(
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """Attend; on devices that we know nothing of, as mmcv does."""
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
    """Called as mmcv's PyTorch form."""
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
    """Say in the log of the run what computes, when it first does."""
    if device not in _told and not is_compiling():
        _told.add(device)
        print_log(
            'project.accelerate: MultiScaleDeformableAttention of mmcv runs '
            f'on {describe(device)}.',
            logger='current',
        )


install()
