# Copyright (c) mmdetr authors. All rights reserved.
"""DDQ's class-agnostic NMS of all images at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from project.ops.suppression import IMAGES_PER_CALL, survivors

from .gather import gather_points, true_first


@torch.no_grad()
def distinct_boxes(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    candidates: Tensor | None = None,
) -> Tensor:
    """Class-agnostic NMS.

    Equal to mmcv's ``batched_nms`` with one id for all boxes, including its
    rounding: boxes are offset by the largest coordinate.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) with centres and sizes in
            [0, 1], has shape (bs, num_boxes, 4).
        scores (Tensor): Has shape (bs, num_boxes).
        iou_threshold (float): IoU above which the box with the lower score
            is suppressed.
        candidates (Tensor, optional): False for boxes to ignore, has shape
            (bs, num_boxes). By default all take part.

    Returns:
        Tensor: True for candidates that survive, has shape (bs, num_boxes).
    """
    if candidates is None:
        candidates = torch.ones_like(scores, dtype=torch.bool)
    others = ~candidates[..., None]
    moved = _moved(boxes, boxes.masked_fill(others, -torch.inf))
    # Boxes without area overlap nothing.
    moved = moved.masked_fill(others, 0)
    order = best_first(scores.float())  # the op has no float64
    apart = _apart(gather_points(moved, order))
    stays = survivors(apart, iou_threshold, images_apart=True)
    return torch.zeros_like(stays).scatter(1, order, stays) & candidates


@torch.no_grad()
def best_distinct_boxes(
    boxes: Tensor, scores: Tensor, num_wanted: int, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Select the best boxes after class-agnostic NMS.

    Args:
        boxes (Tensor): As in :func:`distinct_boxes`.
        scores (Tensor): As in :func:`distinct_boxes`.
        num_wanted (int): Number of boxes to select.
        iou_threshold (float): As in :func:`distinct_boxes`.

    Returns:
        tuple[Tensor, Tensor]: Indices of boxes, best first, and whether they
        are fillers, if an image has fewer distinct boxes; each has shape
        (bs, num_wanted).
    """
    order = best_first(scores.float())  # the op has no float64
    apart = _apart(gather_points(_moved(boxes, boxes), order))
    stays = survivors(apart, iou_threshold, True, max_kept=num_wanted)
    first = true_first(stays, num_wanted)
    indices, is_filler = order.gather(1, first), ~stays.gather(1, first)
    missing = (0, num_wanted - indices.shape[1])
    return (
        F.pad(indices, missing),
        F.pad(is_filler, missing, value=True),
    )


def best_first(scores: Tensor) -> Tensor:
    """Sort the boxes of each image as mmdet and its ops do.

    Padded points have equal scores, whose order depends on the unstable sort:
    only the same call gives the same order.

    Args:
        scores (Tensor): Has shape (bs, num_boxes).

    Returns:
        Tensor: Indices, has the same shape.
    """
    if torch.compiler.is_exporting():  # for any number of images
        return scores.argsort(dim=1, descending=True)
    return torch.stack(
        [of_image.argsort(descending=True) for of_image in scores]
    )


def _moved(boxes: Tensor, measured: Tensor) -> Tensor:
    """Offset boxes by 1 plus the largest coordinate of ``measured``."""
    return boxes + (measured.amax((1, 2), keepdim=True) + 1)


def _apart(boxes: Tensor) -> Tensor:
    """Separate the boxes of images that share a call of the op.

    Four images go into the four quadrants, the next four around them at
    eight times the scale, and so on: signs and powers of two are exact. The
    areas of 20 images per quadrant fit into float32.

    Args:
        boxes (Tensor): Offset boxes, which lie in [0.5, 4], has shape
            (bs, num_boxes, 4).

    Returns:
        Tensor: In float32, has the same shape.
    """
    boxes = boxes.float()
    image = torch.arange(boxes.shape[0], device=boxes.device)
    image = image % IMAGES_PER_CALL
    signs = 1 - 2 * torch.stack([image % 2, image // 2 % 2], 1)
    factors = (signs * 8.0 ** (image // 4)[:, None]).to(boxes.dtype)
    corners = boxes.unflatten(-1, (2, 2)) * factors[:, None, None]
    return torch.cat(corners.aminmax(dim=2), -1)
