# Copyright (c) mmdetr authors. All rights reserved.
"""Non-maximum suppression as a custom op of torch.

Its result has the shape of the boxes, so ``torch.compile`` and
``torch.export`` trace it without a graph break. The kernel is mmcv's; ONNX has
``NonMaxSuppression`` in its place.
"""

import torch
from mmcv.ops import nms
from torch import Tensor

OP = 'mmdetr::nms'
IMAGES_PER_CALL = 80
"""Largest number of images in one call of mmcv's op."""
# Each of its calls synchronizes, but its time and memory grow with the square
# of its boxes.
_BOXES_PER_CALL = 8192
# A prefix of so many times the boxes that are wanted mostly has them.
_FIRST_LOOK = 4

torch.library.define(
    OP,
    '(Tensor boxes, float iou_threshold, bool images_apart, SymInt? max_kept) '
    '-> Tensor',
)


def survivors(
    boxes: Tensor,
    iou_threshold: float,
    images_apart: bool = False,
    max_kept: int | None = None,
) -> Tensor:
    """Find the boxes that no better one of their image suppresses.

    Boxes without area are never suppressed.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2) in float32, best first in each
            image, has shape (bs, num_boxes, 4).
        iou_threshold (float): IoU above which a box is suppressed.
        images_apart (bool): Whether boxes of :data:`IMAGES_PER_CALL`
            consecutive images do not overlap each other, so that a GPU may
            process them in one call. Defaults to False.
        max_kept (int, optional): Number of survivors of an image that are
            needed; later ones may be missing. Defaults to all.

    Returns:
        Tensor: True for survivors, has shape (bs, num_boxes).
    """
    return torch.ops.mmdetr.nms(boxes, iou_threshold, images_apart, max_kept)


def images_per_call(boxes: Tensor) -> int:
    """Number of images whose boxes mmcv's op gets at once.

    Args:
        boxes (Tensor): Has shape (bs, num_boxes, 4).
    """
    if boxes.device.type == 'cpu' or torch.compiler.is_exporting():
        return 1
    wanted = _BOXES_PER_CALL // max(boxes.shape[1], 1)
    return min(max(wanted, 1), IMAGES_PER_CALL)


def _kernel(
    boxes: Tensor,
    iou_threshold: float,
    images_apart: bool,
    max_kept: int | None,
) -> Tensor:
    num_boxes = boxes.shape[1]
    if max_kept is not None and _FIRST_LOOK * max_kept < num_boxes:
        # Only better boxes can suppress a box.
        best = boxes[:, : _FIRST_LOOK * max_kept]
        marks = _in_calls(best, iou_threshold, images_apart)
        if (marks.sum(1) >= max_kept).all():
            missing = num_boxes - marks.shape[1]
            return torch.nn.functional.pad(marks, (0, missing))
    return _in_calls(boxes, iou_threshold, images_apart)


torch.library.impl(OP, 'CompositeExplicitAutograd', _kernel)


@torch.library.register_fake(OP)
def _fake(
    boxes: Tensor,
    iou_threshold: float,
    images_apart: bool,
    max_kept: int | None,
) -> Tensor:
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def _in_calls(
    boxes: Tensor, iou_threshold: float, images_apart: bool
) -> Tensor:
    """Survivors of all images, in as few calls as memory allows."""
    num_images = images_per_call(boxes) if images_apart else 1
    calls = boxes.split(num_images)
    return torch.cat([_marked(some, iou_threshold) for some in calls])


def _marked(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Survivors of some images, in one call.

    mmcv's op only sorts by the scores. Passing ranks breaks ties in the same
    way on all devices.
    """
    flat = boxes.flatten(0, 1)
    ranks = torch.arange(len(flat), 0, -1, device=flat.device)
    kept = nms(flat, ranks.to(flat.dtype), iou_threshold)[1]
    marks = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    return marks.index_fill_(0, kept, 1).view(boxes.shape[:2])
