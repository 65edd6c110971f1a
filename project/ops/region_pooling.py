# Copyright (c) mmdetr authors. All rights reserved.
"""RoIAlign on several levels as a custom op of torch.

For exports: ONNX has ``RoiAlign``. ``MemoryRoIAlign`` gives the same up to
rounding, faster, and has a gradient.
"""

from collections.abc import Sequence

import torch
from mmcv.ops import roi_align
from torch import Tensor

OP = 'mmdetr::roi_align'

torch.library.define(
    OP,
    '(Tensor memory, Tensor boxes, Tensor levels, Tensor spatial_shapes, '
    'float[] strides, int[2] output_size, int sampling_ratio, bool aligned) '
    '-> Tensor',
)


def multi_level_roi_align(
    memory: Tensor,
    boxes: Tensor,
    levels: Tensor,
    spatial_shapes: Tensor,
    *,
    strides: Sequence[float],
    output_size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool the features of boxes, each on its level.

    Args:
        memory (Tensor): Flattened features, has shape
            (bs, num_feat_points, dim).
        boxes (Tensor): Boxes (x1, y1, x2, y2) in pixels of the network's
            input, has shape (bs, num_boxes, 4).
        levels (Tensor): Level of each box, has shape (bs, num_boxes).
        spatial_shapes (Tensor): (h, w) of each level, has shape
            (num_levels, 2).
        strides (Sequence[float]): Pixels between the points of the levels
            that boxes may have.
        output_size (tuple[int, int]): Rows and columns of bins.
        sampling_ratio (int): Points of a bin along each axis.
        aligned (bool): Whether to shift boxes by half a point.

    Returns:
        Tensor: Features, bins in row-major order, has shape
        (bs * num_boxes, num_bins, dim).
    """
    return torch.ops.mmdetr.roi_align(
        memory,
        boxes,
        levels,
        spatial_shapes,
        list(strides),
        list(output_size),
        sampling_ratio,
        aligned,
    )


def _kernel(
    memory: Tensor,
    boxes: Tensor,
    levels: Tensor,
    spatial_shapes: Tensor,
    strides: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    images = torch.arange(len(boxes), device=boxes.device)
    images = images.to(boxes.dtype).repeat_interleave(boxes.shape[1])
    rois = torch.cat([images[:, None], boxes.flatten(0, 1)], 1)
    shapes = spatial_shapes.tolist()
    maps = memory.transpose(1, 2).split([h * w for h, w in shapes], dim=2)
    pooled = memory.new_zeros(len(rois), output_size[0] * output_size[1], 1)
    for level, stride in enumerate(strides):
        feature = maps[level].unflatten(2, shapes[level]).contiguous()
        found = roi_align(
            feature,
            rois.to(feature.dtype),
            tuple(output_size),
            1 / stride,
            sampling_ratio,
            'avg',
            aligned,
        )
        is_here = (levels.flatten() == level)[:, None, None]
        pooled = torch.where(is_here, found.flatten(2).transpose(1, 2), pooled)
    return pooled


torch.library.impl(OP, 'CompositeExplicitAutograd', _kernel)


@torch.library.register_fake(OP)
def _fake(
    memory: Tensor,
    boxes: Tensor,
    levels: Tensor,
    spatial_shapes: Tensor,
    strides: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    num_bins = output_size[0] * output_size[1]
    return memory.new_empty(
        boxes.shape[0] * boxes.shape[1], num_bins, memory.shape[2]
    )
