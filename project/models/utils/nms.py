# Copyright (c) mmdetr authors. All rights reserved.
"""Non-maximum suppression of many groups of boxes in one call."""

import math
from itertools import product

import torch
from mmcv.ops import nms
from torch import Tensor


def nms_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """Suppress boxes that overlap a better box of their own group.

    One call of mmcv's compiled op for all groups. Boxes without area are
    never suppressed.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], best first within
            each group, has shape (num_boxes, 4).
        groups (Tensor): Group of each box, has shape (num_boxes, ).
        num_groups (int): Number of groups. The first four lose no precision,
            see :func:`_side_by_side`.
        iou_threshold (float): A box is suppressed if its IoU is larger.

    Returns:
        Tensor: True for the boxes that survive, has shape (num_boxes, ).
    """
    # Half precision cannot tell neighbours apart, and the op takes no float64.
    boxes = _side_by_side(boxes.float(), groups, num_groups)
    return survivors(boxes, iou_threshold)


def survivors(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one.

    mmcv's op reads scores only to sort by them, so it is given the order
    itself: ties are broken the same way everywhere.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in float32, best first, has
            shape (num_boxes, 4).
        iou_threshold (float): A box is suppressed if its IoU is larger.

    Returns:
        Tensor: True for the boxes that survive, has shape (num_boxes, ).
    """
    order = torch.arange(len(boxes), 0, -1, device=boxes.device)
    _, kept = nms(boxes, order.to(boxes.dtype), iou_threshold)
    survives = torch.zeros_like(order, dtype=torch.bool)
    return survives.index_fill_(0, kept, True)


def _side_by_side(boxes: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Move each group into a cell of its own.

    Cells are unit squares around the origin. The usual layout, all in a row,
    adds large numbers to the coordinates and loses their last bits; here
    those are as small as can be, and the four cells at the origin are
    mirror images of each other, which is exact.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], has shape
            (num_boxes, 4).
        groups (Tensor): Group of each box, has shape (num_boxes, ).
        num_groups (int): Number of groups.

    Returns:
        Tensor: Boxes of which those of different groups do not overlap, has
        shape (num_boxes, 4).
    """
    half = math.ceil(math.sqrt(num_groups) / 2)
    cells = sorted(
        product(range(-half, half), repeat=2),
        key=lambda cell: max(abs(2 * corner + 1) for corner in cell),
    )
    cells = torch.tensor(cells[:num_groups], dtype=boxes.dtype)
    cell = cells.to(boxes.device, non_blocking=True)[groups]
    mirrored = cell < 0
    corners = boxes.unflatten(1, (2, 2))
    corners = torch.where(mirrored[:, None], -corners, corners)
    shift = cell + mirrored  # cell -1 is the mirror image of cell 0
    low, high = corners.aminmax(dim=1)
    return torch.cat([low + shift, high + shift], 1)
