# Copyright (c) mmdetr authors. All rights reserved.
"""Data types of set prediction: targets, predictions and pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList
from torch import Tensor

from ...utils.box_ops import normalize_boxes
from ...utils.labels import gather_labels


@dataclass(frozen=True)
class SetTargets:
    """Ground truth of a batch, concatenated over the images.

    Args:
        labels (Tensor): Classes, has shape (num_gts, ).
        bboxes_normalized (Tensor): Boxes (cx, cy, w, h) in [0, 1] of each
            unpadded image, has shape (num_gts, 4).
        image_sizes (Tensor): (w, h, w, h) of each unpadded image, has shape
            (bs, 4).
        counts (list[int]): Number of ground truths of each image.
        img_metas (list[dict]): Meta information of each image.
        check_labels (Callable): Raises if labels are out of range; called
            where the host synchronizes anyway. By default nothing is
            checked.
    """

    labels: Tensor
    bboxes_normalized: Tensor
    image_sizes: Tensor
    counts: list[int]
    img_metas: list[dict]
    check_labels: Callable[[], None] = lambda: None

    @cached_property
    def offsets(self) -> list[int]:
        """list[int]: First index of each image, and the total."""
        return [0, *accumulate(self.counts)]

    @classmethod
    def from_instances(
        cls,
        gt_instances: InstanceList,
        img_metas: list[dict],
        like: Tensor,
        num_classes: int | None = None,
    ) -> 'SetTargets':
        """Join mmdet's ground truth of each image.

        Args:
            gt_instances (list[:obj:`InstanceData`]): ``bboxes`` in pixels
                (x1, y1, x2, y2) and ``labels`` of each image.
            img_metas (list[dict]): ``img_shape`` of each image.
            like (Tensor): Gives the device, and the dtype if that is wider
                than float32.
            num_classes (int, optional): Number of classes. By default labels
                are not checked.

        Raises:
            UserError: If a label on the host is out of range.
        """
        labels, check_labels = gather_labels(
            gt_instances, img_metas, num_classes
        )
        bboxes, sizes = normalize_boxes(
            [gt.bboxes for gt in gt_instances],
            [meta['img_shape'] for meta in img_metas],
            like,
        )
        return cls(
            labels=labels,
            bboxes_normalized=bboxes,
            image_sizes=sizes,
            counts=[len(instances) for instances in gt_instances],
            img_metas=img_metas,
            check_labels=check_labels,
        )

    def __len__(self) -> int:
        return self.offsets[-1]

    def of_image(self, image: int) -> slice:
        """Slice of the ground truths of one image."""
        return slice(self.offsets[image], self.offsets[image + 1])


@dataclass(frozen=True)
class Predictions:
    """Predictions of one group of queries in all layers.

    Args:
        cls_scores (Tensor): Logits, has shape
            (num_layers, bs, num_queries, num_classes).
        bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
            (num_layers, bs, num_queries, 4).
        prefix (str): Prefix of the losses of the group, such as ``'enc_'``.
            Defaults to ``''``.
        branch (str): Prefix before that of the layer, such as ``'aux_0_'`` of
            an auxiliary head. Defaults to ``''``.
        class_agnostic (bool): Whether all targets count as class 0, as in
            Deformable DETR's first stage. Defaults to False.
        valid (Tensor, optional): False for queries that are neither matched
            nor background, has shape (num_layers, bs, num_queries). By
            default all are valid.
    """

    cls_scores: Tensor
    bbox_preds: Tensor
    prefix: str = ''
    branch: str = ''
    class_agnostic: bool = False
    valid: Tensor | None = None

    @property
    def num_layers(self) -> int:
        """int: Number of layers."""
        return self.cls_scores.shape[0]

    @property
    def num_queries(self) -> int:
        """int: Number of queries."""
        return self.cls_scores.shape[2]

    def loss_name(self, layer: int, term: str) -> str | None:
        """mmdet's name of a loss: the last layer has no layer prefix.

        None drops the loss.
        """
        stage = '' if layer == self.num_layers - 1 else f'd{layer}.'
        return f'{self.branch}{stage}{self.prefix}{term}'


@dataclass(frozen=True)
class MatchedPairs:
    """Pairs of predictions and targets.

    A prediction or a target may occur in several pairs. A prediction with
    several targets is trained on the class of the last one and on all boxes.

    Args:
        layer (Tensor): Layer of each prediction, has shape (num_pairs, ).
        image (Tensor): Its image, has shape (num_pairs, ).
        query (Tensor): Its query within the set, has shape (num_pairs, ).
        target (Tensor): Index into :class:`SetTargets`, has shape
            (num_pairs, ).
        counts (list[int]): Number of pairs of each layer.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.layer)

    def rows(self, batch_size: int, num_queries: int) -> Tensor:
        """Index of each prediction in flattened (layer, image, query)."""
        image = self.layer * batch_size + self.image
        return image * num_queries + self.query


@dataclass(frozen=True)
class PairContext:
    """Matched pairs, as inputs of a classification loss.

    Args:
        pairs (MatchedPairs): Layer, image, query and target of each pair.
        bboxes (Tensor): Predicted boxes (x1, y1, x2, y2) in [0, 1], without
            gradient, has shape (num_pairs, 4).
        gt_bboxes (Tensor): Boxes of their targets, has the same shape.
        image_sizes (Tensor): (w, h, w, h) of their images in pixels, has the
            same shape.
        num_targets (int): Number of targets of the batch.
    """

    pairs: MatchedPairs
    bboxes: Tensor
    gt_bboxes: Tensor
    image_sizes: Tensor
    num_targets: int

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Predicted and ground-truth boxes in pixels."""
        return (
            self.bboxes * self.image_sizes,
            self.gt_bboxes * self.image_sizes,
        )

    def by_target(self) -> Tensor:
        """Index of each pair's (layer, target), has shape (num_pairs, )."""
        return self.pairs.layer * self.num_targets + self.pairs.target


class PairTerms(NamedTuple):
    """Terms of matched pairs in the losses.

    Args:
        correction (Tensor): Change of the classification loss by each pair,
            has shape (num_pairs, ).
        weights (Tensor, optional): Weights of the box losses, has shape
            (num_pairs, ). Defaults to ones.
    """

    correction: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class CostInputs:
    """Predictions of one set and ground truth of one image.

    Args:
        prefix (str): Loss prefix of the set.
        num_layers (int): Number of layers, over which predictions are
            concatenated.
        scores (Tensor): Logits, has shape (num_preds, num_classes).
        boxes (Tensor): Predicted boxes (cx, cy, w, h) in [0, 1], has shape
            (num_preds, 4).
        labels (Tensor): Has shape (num_gts, ).
        gt_boxes (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
            (num_gts, 4).
        image_size (Tensor): (w, h, w, h) in pixels, has shape (4, ).
        img_meta (dict): Meta information of the image.
    """

    prefix: str
    num_layers: int
    scores: Tensor
    boxes: Tensor
    labels: Tensor
    gt_boxes: Tensor
    image_size: Tensor
    img_meta: dict

    def corners(self) -> tuple[Tensor, Tensor]:
        """Predicted and ground-truth boxes (x1, y1, x2, y2) in [0, 1]."""
        return (
            bbox_cxcywh_to_xyxy(self.boxes),
            bbox_cxcywh_to_xyxy(self.gt_boxes),
        )

    def pixels(self) -> list[Tensor]:
        """Predicted and ground-truth boxes (x1, y1, x2, y2) in pixels."""
        return [corners * self.image_size for corners in self.corners()]
