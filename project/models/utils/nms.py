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
    kept = kept_in_groups(boxes, groups, num_groups, iou_threshold)
    return _marked(kept, len(boxes))


def kept_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """Indices of the boxes that survive in :func:`nms_in_groups`.

    The op knows how many they are; to count them in its mask would make the
    host wait once more.

    Args:
        boxes (Tensor): As there.
        groups (Tensor): As there.
        num_groups (int): As there.
        iou_threshold (float): As there.

    Returns:
        Tensor: Indices in the order of the boxes, has shape (num_kept, ).
    """
    # Half precision cannot tell neighbours apart, and the op takes no float64.
    boxes = _side_by_side(boxes.float(), groups, num_groups)
    return _kept(boxes, iou_threshold)


def survivors(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in float32, best first, has
            shape (num_boxes, 4).
        iou_threshold (float): A box is suppressed if its IoU is larger.

    Returns:
        Tensor: True for the boxes that survive, has shape (num_boxes, ).
    """
    return _marked(_kept(boxes, iou_threshold), len(boxes))


def _kept(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that survive, see :func:`survivors`.

    mmcv's op reads scores only to sort by them, so it is given the order
    itself: ties are broken the same way everywhere.
    """
    order = torch.arange(len(boxes), 0, -1, device=boxes.device)
    return nms(boxes, order.to(boxes.dtype), iou_threshold)[1]


def _marked(indices: Tensor, length: int) -> Tensor:
    """True at the indices, has shape (length, )."""
    marks = torch.zeros(length, dtype=torch.bool, device=indices.device)
    return marks.index_fill_(0, indices, 1)  # TorchScript does not take True


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
    origins = torch.tensor(cells[:num_groups], dtype=boxes.dtype)
    cell = origins.to(boxes.device, non_blocking=True)[groups]
    mirrored = cell < 0
    corners = boxes.unflatten(1, (2, 2))
    corners = torch.where(mirrored[:, None], -corners, corners)
    shift = cell + mirrored  # cell -1 is the mirror image of cell 0
    low, high = corners.aminmax(dim=1)
    return torch.cat([low + shift, high + shift], 1)
