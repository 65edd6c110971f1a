# Copyright (c) mmdetr authors. All rights reserved.
"""NMS of several images and groups of boxes at once."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from project.ops.suppression import images_per_call, survivors
from project.utils.settings import IoU


@dataclass(frozen=True)
class NMS:
    """Settings of NMS.

    Attributes:
        type (str): ``'nms'``.
        iou_threshold (float): IoU with a better box above which a box is
            suppressed.
    """

    type: Literal['nms'] = 'nms'
    iou_threshold: IoU = 0.7


def nms_in_groups(
    boxes: Tensor,
    groups: Tensor,
    num_groups: int,
    iou_threshold: float,
    max_kept: int | None = None,
) -> Tensor:
    """NMS of a batch within groups of boxes.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], best first in each
            image, has shape (bs, num_boxes, 4).
        groups (Tensor): Group of each box in its image, has shape
            (bs, num_boxes).
        num_groups (int): Number of groups of an image. The first four lose
            no precision, see :func:`_side_by_side`.
        iou_threshold (float): As in :func:`survivors`.
        max_kept (int, optional): As in :func:`survivors`.

    Returns:
        Tensor: True for survivors, has shape (bs, num_boxes).
    """
    together = images_per_call(boxes) > 1
    if together:
        # Large groups first: the first four lose no precision.
        images = torch.arange(len(boxes), device=groups.device)
        groups = groups * len(boxes) + images[:, None]
        num_groups = num_groups * len(boxes)
    apart = _side_by_side(boxes.flatten(0, 1), groups.flatten(), num_groups)
    return survivors(apart.view_as(boxes), iou_threshold, together, max_kept)


def _side_by_side(boxes: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Shift each group into a cell of its own.

    Cells are unit squares around the origin. The usual layout, all in a row,
    adds large offsets, which cost precision; here offsets are as small as
    possible, and the four cells at the origin are exact mirror images.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], has shape
            (num_boxes, 4).
        groups (Tensor): Group of each box, has shape (num_boxes, ).
        num_groups (int): Number of groups.

    Returns:
        Tensor: Boxes in float32; different groups do not overlap. Has shape
        (num_boxes, 4).
    """
    # Half precision is too coarse, and the op does not support float64.
    boxes = boxes.float()
    half = math.ceil(math.sqrt(num_groups) / 2)
    cells = sorted(
        product(range(-half, half), repeat=2),
        key=lambda cell: max(abs(2 * corner + 1) for corner in cell),
    )
    origins = torch.tensor(cells[:num_groups], dtype=boxes.dtype)
    cell = origins.to(boxes.device, non_blocking=True)[groups]
    mirrored = cell < 0
    corners = boxes.unflatten(1, (2, 2))
    corners = torch.where(mirrored[:, None], -corners, corners)
    shift = cell + mirrored  # cell -1 is the mirror image of cell 0
    low, high = corners.aminmax(dim=1)
    return torch.cat([low + shift, high + shift], 1)
