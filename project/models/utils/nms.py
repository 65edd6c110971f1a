# Copyright (c) mmdetr authors. All rights reserved.
"""Non-maximum suppression in several images and groups of boxes at once."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from mmcv.ops import nms
from torch import Tensor

from project.utils.settings import IoU

# The op's time and memory grow with the square of its boxes. On an accelerator
# one call is worth some; each makes the host wait.
_BOXES_PER_CALL = 8192
IMAGES_PER_CALL = 80
"""The most images whose boxes one call of the op is given."""


@dataclass(frozen=True)
class NMS:
    """Settings of a suppression.

    Attributes:
        type (str): Its kind; there is one.
        iou_threshold (float): A box is suppressed if its IoU with a better
            one is larger.
    """

    type: Literal['nms'] = 'nms'
    iou_threshold: IoU = 0.7


def survivors(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one.

    As many images go into a call of the op as it takes together. Boxes
    without area are never suppressed.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2), best first in each image,
            has shape (bs, num_boxes, 4). Those of :data:`IMAGES_PER_CALL`
            images in a row must not meet.
        iou_threshold (float): A box is suppressed if its IoU is larger.

    Returns:
        Tensor: True for the boxes that survive, has shape (bs, num_boxes).
    """
    calls = boxes.split(_images_per_call(boxes))
    return torch.cat([_marked(some, iou_threshold) for some in calls])


def nms_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """Suppress boxes that overlap a better box of their own group.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], best first in each
            image, has shape (bs, num_boxes, 4).
        groups (Tensor): Group of each box, which no other image has, has
            shape (bs, num_boxes).
        num_groups (int): Number of groups. The first four lose no precision,
            see :func:`_side_by_side`.
        iou_threshold (float): As in :func:`survivors`.

    Returns:
        Tensor: True for the boxes that survive, has shape (bs, num_boxes).
    """
    apart = _side_by_side(boxes.flatten(0, 1), groups.flatten(), num_groups)
    return survivors(apart.view_as(boxes), iou_threshold)


def kept_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """Indices of the boxes of one image that survive within their group.

    The op knows how many they are; to count them in a mask would make the
    host wait once more.

    Args:
        boxes (Tensor): As in :func:`nms_in_groups`, has shape
            (num_boxes, 4).
        groups (Tensor): Group of each box, has shape (num_boxes, ).
        num_groups (int): Number of groups.
        iou_threshold (float): A box is suppressed if its IoU with a better
            box of its group is larger.

    Returns:
        Tensor: Indices in the order of the boxes, has shape (num_kept, ).
    """
    return _kept(_side_by_side(boxes, groups, num_groups), iou_threshold)


def _kept(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that survive, best first.

    mmcv's op reads scores only to sort by them, so it is given the order
    itself: ties are broken the same way everywhere.
    """
    order = torch.arange(len(boxes), 0, -1, device=boxes.device)
    return nms(boxes, order.to(boxes.dtype), iou_threshold)[1]


def _images_per_call(boxes: Tensor) -> int:
    """How many images :func:`survivors` suppresses in at once."""
    if boxes.device.type == 'cpu':
        return 1
    num_images = _BOXES_PER_CALL // max(boxes.shape[1], 1)
    return min(max(num_images, 1), IMAGES_PER_CALL)


def _marked(boxes: Tensor, iou_threshold: float) -> Tensor:
    """:func:`survivors`, in one call of the op."""
    kept = _kept(boxes.flatten(0, 1), iou_threshold)
    marks = torch.zeros(
        boxes.shape[:2].numel(), dtype=torch.bool, device=boxes.device
    )
    marks = marks.index_fill_(0, kept, 1)  # TorchScript does not take True
    return marks.view(boxes.shape[:2])


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
        Tensor: Boxes in float32, of which those of different groups do not
        overlap, has shape (num_boxes, 4).
    """
    # Half precision cannot tell neighbours apart, and the op takes no float64.
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
