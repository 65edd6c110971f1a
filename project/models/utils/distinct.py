# Copyright (c) mmdetr authors. All rights reserved.
import torch
from mmcv.ops import nms
from torch import Tensor


@torch.no_grad()
def distinct_boxes(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    candidates: Tensor | None = None,
) -> list[Tensor]:
    """Suppress boxes that overlap better ones, whatever their class.

    The same choice as by mmcv's ``batched_nms`` with one id for all boxes,
    whose rounding is kept: boxes are moved by the largest coordinate.

    Args:
        boxes (Tensor): Boxes (x1, y1, x2, y2), has shape (bs, num_boxes, 4).
        scores (Tensor): Has shape (bs, num_boxes).
        iou_threshold (float): Of two boxes that overlap more the one with
            the lower score goes.
        candidates (Tensor, optional): Which boxes count, has shape
            (bs, num_boxes). Others suppress none; they may be among the
            results. By default all do.

    Returns:
        list[Tensor]: Indices of the boxes of each image that stay, best
        first, has shape (num_kept, ).
    """
    if candidates is None:
        largest = boxes.amax((1, 2), keepdim=True)
    else:
        others = ~candidates[..., None]
        largest = boxes.masked_fill(others, -torch.inf).amax(
            (1, 2), keepdim=True
        )
    moved = boxes + (largest + 1)
    if candidates is not None:  # without an area they overlap nothing
        moved = moved.masked_fill(others, 0)
    return [
        nms(of_image.float(), scores_of_image.float(), iou_threshold)[1]
        for of_image, scores_of_image in zip(moved, scores, strict=True)
    ]
