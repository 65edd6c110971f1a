# Copyright (c) mmdetr authors. All rights reserved.
"""Box functions that mmdet lacks."""

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
    """Concatenate the boxes of a batch, normalized by their image sizes.

    Args:
        boxes (Sequence[Tensor]): Boxes (x1, y1, x2, y2) in pixels of each
            image, has shape (num_boxes, 4).
        img_shapes (Sequence[tuple]): (h, w) of each unpadded image.
        like (Tensor): Gives the device, and the dtype if that is wider than
            float32.

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
    """Image sizes as a tensor by which boxes are scaled.

    Args:
        img_shapes (Sequence[tuple]): (h, w) of each unpadded image.
        like (Tensor): Gives the device, and the dtype if that is wider than
            float32.

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
    """Refine references by box deltas, which are added to their logits.

    In float32 at least, since half precision cannot represent eps of 1e-5.

    Args:
        deltas (Tensor): Output of the box branch, has shape (..., 4).
        reference_points (Tensor): In [0, 1], (cx, cy) or (cx, cy, w, h),
            has shape (..., 2 or 4). For points, width and height come from
            the deltas alone.
        eps (float): Eps of the inverse sigmoid of the references.

    Returns:
        Tensor: Boxes (cx, cy, w, h) in [0, 1], has shape (..., 4).
    """
    logits = inverse_sigmoid(reference_points, eps)
    if logits.shape[-1] == 2:
        logits = pad(logits, (0, 2))
    return (deltas + logits).sigmoid()


@full_precision
def generalized_box_iou(
    boxes1: Tensor, boxes2: Tensor, eps: float, *, add_eps: bool = False
) -> Tensor:
    """GIoU with broadcasting (arXiv 1902.09630).

    Equal to mmdet's ``bbox_overlaps``, without its copy to the device in each
    call, or, with ``add_eps``, to detrex's GIoU.

    Args:
        boxes1 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        boxes2 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        eps (float): Keeps the union and the enclosing area above zero, in
            the boxes' unit of area.
        add_eps (bool): Whether ``eps`` is added to the areas, as in detrex,
            or clamps them, as in mmdet. Defaults to False.

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
    """IoU with broadcasting.

    Args:
        boxes1 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        boxes2 (Tensor): Boxes (x1, y1, x2, y2), has shape (..., 4).
        eps (float): Keeps the union above zero, in the boxes' unit of area.
        add_eps (bool): Whether ``eps`` is added to the union or clamps it, as
            in mmdet. Defaults to True.

    Returns:
        Tensor: IoU in [0, 1], has shape (...).
    """
    overlap, union = _overlap_and_union(boxes1, boxes2)
    return overlap / (union + eps if add_eps else union.clamp(min=eps))


def _overlap_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, ...]:
    """Areas of intersection and union."""
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    overlap = (right1.minimum(right2) - left1.maximum(left2)).clamp(min=0) * (
        bottom1.minimum(bottom2) - top1.maximum(top2)
    ).clamp(min=0)
    area1 = (right1 - left1) * (bottom1 - top1)
    area2 = (right2 - left2) * (bottom2 - top2)
    return overlap, area1 + area2 - overlap
