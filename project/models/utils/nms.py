# Copyright (c) mmdetr authors. All rights reserved.
"""NMS of several images and groups of boxes at once."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from mmcv.ops import nms
from torch import Tensor

from project.utils.settings import IoU

# Each call of the op synchronizes, but its time and memory grow with the
# square of its boxes.
_BOXES_PER_CALL = 8192
IMAGES_PER_CALL = 80
"""Largest number of images in one call of the op."""


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


def survivors(boxes: Tensor, iou_threshold: float) -> Tensor:
    """NMS of a batch, with several images in a call of the op.

    Boxes without area are never suppressed.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2), best first in each image,
            has shape (bs, num_boxes, 4). Those of :data:`IMAGES_PER_CALL`
            consecutive images must not overlap each other.
        iou_threshold (float): IoU above which a box is suppressed.

    Returns:
        Tensor: True for survivors, has shape (bs, num_boxes).
    """
    num_images = 1
    if boxes.device.type != 'cpu':
        num_images = _BOXES_PER_CALL // max(boxes.shape[1], 1)
        num_images = min(max(num_images, 1), IMAGES_PER_CALL)
    calls = boxes.split(num_images)
    return torch.cat([_marked(some, iou_threshold) for some in calls])


def nms_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """NMS of a batch within groups of boxes.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], best first in each
            image, has shape (bs, num_boxes, 4).
        groups (Tensor): Group of each box; images share no groups. Has shape
            (bs, num_boxes).
        num_groups (int): Number of groups. The first four lose no precision,
            see :func:`_side_by_side`.
        iou_threshold (float): As in :func:`survivors`.

    Returns:
        Tensor: True for survivors, has shape (bs, num_boxes).
    """
    apart = _side_by_side(boxes.flatten(0, 1), groups.flatten(), num_groups)
    return survivors(apart.view_as(boxes), iou_threshold)


def kept_in_groups(
    boxes: Tensor, groups: Tensor, num_groups: int, iou_threshold: float
) -> Tensor:
    """NMS of one image within groups of boxes.

    Returns indices as the op does; indexing by a mask would synchronize once
    more.

    Args:
        boxes (Tensor): As in :func:`nms_in_groups`, has shape
            (num_boxes, 4).
        groups (Tensor): Group of each box, has shape (num_boxes, ).
        num_groups (int): Number of groups.
        iou_threshold (float): As in :func:`survivors`.

    Returns:
        Tensor: Indices of survivors, best first, has shape (num_kept, ).
    """
    return _kept(_side_by_side(boxes, groups, num_groups), iou_threshold)


def _kept(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Indices of survivors, best first.

    mmcv's op only sorts by the scores. Passing ranks breaks ties in the same
    way on all devices.
    """
    order = torch.arange(len(boxes), 0, -1, device=boxes.device)
    return nms(boxes, order.to(boxes.dtype), iou_threshold)[1]


def _marked(boxes: Tensor, iou_threshold: float) -> Tensor:
    """:func:`survivors`, in one call of the op."""
    kept = _kept(boxes.flatten(0, 1), iou_threshold)
    marks = torch.zeros(
        boxes.shape[:2].numel(), dtype=torch.bool, device=boxes.device
    )
    marks = marks.index_fill_(0, kept, 1)  # TorchScript does not take True
    return marks.view(boxes.shape[:2])


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
