# Copyright (c) mmdetr authors. All rights reserved.
"""What set prediction works on: predictions, targets, pairs of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from mmdet.utils import InstanceList
from torch import Tensor

from ...utils.box_ops import normalize_boxes
from ...utils.labels import gather_labels


@dataclass
class SetTargets:
    """Ground truth of a batch, all images one after another.

    Args:
        labels (Tensor): Classes, has shape (num_gts, ).
        bboxes_normalized (Tensor): Boxes (cx, cy, w, h) in [0, 1] of each
            unpadded image, has shape (num_gts, 4).
        image_sizes (Tensor): (w, h, w, h) of each unpadded image, has shape
            (bs, 4).
        counts (list[int]): Ground truths of each image.
        img_metas (list[dict]): Meta information of each image.
        check_labels (Callable): Called where the host waits for the device;
            raises if there are no such classes. By default there is nothing
            to check.
    """

    labels: Tensor
    bboxes_normalized: Tensor
    image_sizes: Tensor
    counts: list[int]
    img_metas: list[dict]
    check_labels: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.offsets = [0, *accumulate(self.counts)]

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
            like (Tensor): Gives the device, and the precision when that is
                higher than float32.
            num_classes (int, optional): How many classes there are. By
                default labels are taken as they are.

        Raises:
            UserError: If a label on the host is none of them.
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
        """Where the ground truths of one image lie."""
        return slice(self.offsets[image], self.offsets[image + 1])


@dataclass
class MatchedPairs:
    """Which prediction learns which target.

    A prediction may occur in several pairs, and so may a target. The class
    that such a prediction learns is that of its target with the highest
    index; its box learns from all of them.

    Args:
        layer (Tensor): Layer of each prediction, has shape (num_pairs, ).
        image (Tensor): Its image, has shape (num_pairs, ).
        query (Tensor): Its query within the set, has shape (num_pairs, ).
        target (Tensor): Index into :class:`SetTargets`, has shape
            (num_pairs, ).
        counts (list[int]): Pairs of each layer.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.layer)

    def rows(self, batch_size: int, num_queries: int) -> Tensor:
        """Index of each prediction when layers, images, queries are joined.

        Returns:
            Tensor: Has shape (num_pairs, ).
        """
        image = self.layer * batch_size + self.image
        return image * num_queries + self.query


def pairs_of_choice(
    choice: np.ndarray, counts: Sequence[int], num_layers: int
) -> np.ndarray:
    """Pairs that all layers share, of what an assigner chose, on the host.

    Args:
        choice (ndarray): Queries of each target, -1 for none, has shape
            (num_gts, max_per_gt).
        counts (Sequence[int]): Targets of each image.
        num_layers (int): Layers that learn the same pairs.

    Returns:
        ndarray: Rows of layer, image, query and target, in each layer by
        target, has shape (4, num_pairs).
    """
    target, place = np.nonzero(choice >= 0)
    image = np.repeat(np.arange(len(counts)), counts)[target]
    of_layer = np.stack([image, choice[target, place], target])
    layer = np.repeat(np.arange(num_layers), len(target))
    pairs = np.vstack([layer, np.tile(of_layer, num_layers)])
    return pairs.astype(np.int64)


@dataclass
class PairContext:
    """What a classification loss may know of matched pairs.

    Args:
        pairs (MatchedPairs): Layer, image, query and target of each pair.
        bboxes (Tensor): Predicted boxes (x1, y1, x2, y2) in [0, 1], without
            gradient, has shape (num_pairs, 4).
        gt_bboxes (Tensor): Boxes of their targets, likewise.
        image_sizes (Tensor, optional): (w, h, w, h) of their images in
            pixels, likewise.
        num_targets (int): Targets of the batch. Defaults to 0, unknown.
    """

    pairs: MatchedPairs
    bboxes: Tensor
    gt_bboxes: Tensor
    image_sizes: Tensor | None = None
    num_targets: int = 0

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Predicted and true boxes in pixels."""
        return (
            self.bboxes * self.image_sizes,
            self.gt_bboxes * self.image_sizes,
        )

    def by_target(self) -> Tensor:
        """Number the layers' targets, has shape (num_pairs, ).

        Pairs of one target in one layer have the same number, less than the
        number of layers times that of targets.
        """
        return self.pairs.layer * self.num_targets + self.pairs.target


@dataclass
class PredictionSet:
    """Predictions of one group of queries, and how they are to learn.

    Args:
        prefix (str): Put before the names of its losses, such as ``'enc_'``.
        cls_scores (Tensor): Logits, has shape
            (num_layers, bs, num_queries, num_classes).
        bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
            (num_layers, bs, num_queries, 4).
        num_copies (int | Sequence[int]): How many predictions each target
            is matched to; one number, or one for each layer. Defaults to 1.
        class_agnostic (bool): Whether all targets count as class 0, as in
            Deformable DETR's first stage. Defaults to False.
        loss_weight (float): Multiplies all the losses. Defaults to 1.
        normalizer (str, optional): What the losses are divided by,
            one of those of ``SetCriterion``. By default as the criterion
            has it.
        sync_normalizer (bool): Whether that is the mean over all ranks.
            Defaults to True.
        loss_cls (optional): Classification loss of this set, with the
            methods of ``SparseFocalLoss``. By default that of the criterion.
        loss_iou (nn.Module, optional): IoU loss of this set. By default that
            of the criterion.
        valid (Tensor, optional): Which queries take part; the others are
            neither matched nor background. Has shape
            (num_layers, bs, num_queries). By default all do.
        per_image (bool): Whether there is a loss for each image, the values
            of which are a list, instead of their sum. Defaults to False.
        skip_empty (bool): Whether images without targets have no loss; needs
            ``per_image``. Defaults to False.
        matcher (optional): A ``BatchHungarianAssigner`` with other costs,
            for this set. By default that of the criterion.
        pairs (MatchedPairs, optional): Pairs known beforehand, as in
            denoising. By default they are matched.
        assigner (optional): Finds the pairs by ``priors`` alone, in the
            place of matching, with a method ``pairs(priors, targets,
            num_layers)``, and, if its choice can wait for that of the
            others, ``choose(priors, targets)``, as ``TopKIoUAssigner`` has
            them.
        priors (Tensor, optional): Boxes (cx, cy, w, h) in [0, 1] that stand
            for the queries there, has shape (bs, num_queries, 4).
        branch (str): Put before the whole names of its losses, layer
            included, such as ``'aux_0_'`` of an auxiliary head. Defaults
            to nothing.
    """

    prefix: str
    cls_scores: Tensor
    bbox_preds: Tensor
    num_copies: int | Sequence[int] = 1
    class_agnostic: bool = False
    loss_weight: float = 1.0
    normalizer: str | None = None
    sync_normalizer: bool = True
    loss_cls: Any = None
    loss_iou: Any = None
    valid: Tensor | None = None
    per_image: bool = False
    skip_empty: bool = False
    matcher: Any = None
    pairs: MatchedPairs | None = None
    assigner: Any = None
    priors: Tensor | None = None
    branch: str = ''

    def assigned(self, targets: SetTargets) -> 'PredictionSet':
        """The set with its pairs, if its assigner gives nothing else."""
        if self.assigner is None or hasattr(self.assigner, 'choose'):
            return self
        pairs = self.assigner.pairs(self.priors, targets, self.num_layers)
        return replace(self, pairs=pairs)

    @property
    def num_layers(self) -> int:
        """int: Number of layers."""
        return self.cls_scores.shape[0]

    @property
    def num_queries(self) -> int:
        """int: Number of queries."""
        return self.cls_scores.shape[2]

    @property
    def copies(self) -> list[int]:
        """list[int]: Copies of each target in each layer."""
        if isinstance(self.num_copies, int):
            return [self.num_copies] * self.num_layers
        return list(self.num_copies)

    def loss_name(self, layer: int, term: str) -> str | None:
        """mmdet's name of a loss: the last layer has no layer prefix.

        None drops the loss.
        """
        stage = '' if layer == self.num_layers - 1 else f'd{layer}.'
        return f'{self.branch}{stage}{self.prefix}{term}'
