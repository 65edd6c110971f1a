# Copyright (c) mmdetr authors. All rights reserved.
"""mmcv's two implementations of deformable attention: CUDA and PyTorch."""

from collections.abc import Sequence

import torch
from mmcv.ops import get_compiling_cuda_version
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor


def kernel_obstacle() -> str:
    """Why mmcv's kernel cannot run on a GPU, or ''."""
    if get_compiling_cuda_version() == 'not available':
        return 'mmcv is compiled for the CPU only'
    return ''


def attend_by_kernel(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    level_shapes: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Run mmcv's kernel, which takes contiguous tensors only."""
    with torch.autocast(value.device.type, enabled=False):
        output = MultiScaleDeformableAttnFunction.apply(
            value.to(sampling_locations.dtype).contiguous(),
            spatial_shapes,
            level_start_index,
            sampling_locations.contiguous(),
            attention_weights.contiguous(),
            len(value),  # images per launch
        )
    return output.to(value.dtype)


def attend_by_grid_sample(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    level_shapes: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Run mmcv's implementation in PyTorch, on any device."""
    output = multi_scale_deformable_attn_pytorch(
        value.to(sampling_locations.dtype),
        level_shapes or spatial_shapes.tolist(),
        sampling_locations,
        attention_weights,
    )
    return output.to(value.dtype)
