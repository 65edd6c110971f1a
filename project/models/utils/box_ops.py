# Copyright (c) mmdetr authors. All rights reserved.
"""Box functions that mmdet does not have in this form."""

from collections.abc import Sequence

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor
from torch.nn.functional import pad

from .precision import full_precision


def normalize_boxes(
    boxes: Sequence[Tensor], img_shapes: Sequence[tuple], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Join the boxes of a batch, each as fractions of its own image.

    Args:
        boxes (Sequence[Tensor]): Of each image, (x1, y1, x2, y2) in pixels,
            has shape (num_boxes, 4).
        img_shapes (Sequence[tuple]): (h, w) of each unpadded image.
        like (Tensor): Gives the device, and the precision when that is
            higher than float32.

    Returns:
        tuple[Tensor, Tensor]: Boxes (cx, cy, w, h) in [0, 1] of all images,
        has shape (num_boxes, 4), and (w, h, w, h) of each image, has shape
        (bs, 4).
    """
    sizes = image_sizes(img_shapes, like)
    normalized = [
        boxes_of_image.to(sizes.dtype) / size
        for boxes_of_image, size in zip(boxes, sizes, strict=True)
    ]
    return bbox_xyxy_to_cxcywh(torch.cat(normalized)), sizes


def image_sizes(img_shapes: Sequence[tuple], like: Tensor) -> Tensor:
    """Sizes in the form that boxes are scaled by.

    Args:
        img_shapes (Sequence[tuple]): (h, w) of each unpadded image.
        like (Tensor): Gives the device, and the precision when that is
            higher than float32.

    Returns:
        Tensor: (w, h, w, h) of each image, has shape (bs, 4).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    sizes = [[shape[1], shape[0]] * 2 for shape in img_shapes]
    return torch.tensor(sizes, dtype=dtype).to(like.device, non_blocking=True)


@full_precision
def refine_reference(
    deltas: Tensor, reference_points: Tensor, eps: float = 1e-5
) -> Tensor:
    """Move references by what a box head predicts, in log-odds.

    In float32 at least: half precision has no odds of 1e-5.

    Args:
        deltas (Tensor): Output of the box head, has shape (..., 4).
        reference_points (Tensor): In [0, 1], (cx, cy) or (cx, cy, w, h),
            has shape (..., 2 or 4). Of points only the centre is moved;
            width and height are then the head's own.
        eps (float): Clamp of the references before their log-odds.

    Returns:
        Tensor: Boxes (cx, cy, w, h) in [0, 1], has shape (..., 4).
    """
    log_odds = inverse_sigmoid(reference_points, eps)
    if log_odds.shape[-1] == 2:
        log_odds = pad(log_odds, (0, 2))
    return (deltas + log_odds).sigmoid()


@full_precision
def generalized_box_iou(
    boxes1: Tensor, boxes2: Tensor, eps: float, *, add_eps: bool = False
) -> Tensor:
    """GIoU of broadcast shapes: of matched pairs or of whole matrices.

    The value of mmdet's ``bbox_overlaps`` (GIoU: arXiv 1902.09630), without
    the transfer to the device that it makes in each call, and, with
    ``add_eps``, that of detrex.

    Args:
        boxes1 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        boxes2 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        eps (float): Keeps the union and the enclosing area from zero, in
            the boxes' unit of area.
        add_eps (bool): Whether ``eps`` is added to the areas, as in detrex,
            or their lower bound, as in mmdet. Defaults to False.

    Returns:
        Tensor: GIoU in [-1, 1], has shape (...).
    """
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    overlap, union = _overlap_and_union(boxes1, boxes2)
    enclosing = (right1.maximum(right2) - left1.minimum(left2)) * (
        bottom1.maximum(bottom2) - top1.minimum(top2)
    )
    if add_eps:
        gap = (enclosing - union) / (enclosing + eps)
        return overlap / (union + eps) - gap
    union, enclosing = union.clamp(min=eps), enclosing.clamp(min=eps)
    return overlap / union - (enclosing - union) / enclosing


@full_precision
def box_iou(
    boxes1: Tensor, boxes2: Tensor, eps: float, *, add_eps: bool = True
) -> Tensor:
    """IoU of broadcast shapes.

    Args:
        boxes1 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        boxes2 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        eps (float): Keeps the union from zero, in the boxes' unit of area.
        add_eps (bool): Whether ``eps`` is added to the union, or its lower
            bound, as in mmdet. Defaults to True.

    Returns:
        Tensor: IoU in [0, 1], has shape (...).
    """
    overlap, union = _overlap_and_union(boxes1, boxes2)
    return overlap / (union + eps if add_eps else union.clamp(min=eps))


def _overlap_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, ...]:
    """Areas that two boxes share and cover together."""
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    overlap = (right1.minimum(right2) - left1.maximum(left2)).clamp(min=0) * (
        bottom1.minimum(bottom2) - top1.maximum(top2)
    ).clamp(min=0)
    area1 = (right1 - left1) * (bottom1 - top1)
    area2 = (right2 - left2) * (bottom2 - top2)
    return overlap, area1 + area2 - overlap
