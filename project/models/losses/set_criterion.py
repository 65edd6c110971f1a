# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from mmdet.models.losses import FocalLoss, GIoULoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from project.utils.errors import UserError

from ..task_modules.set_prediction import (
    BatchHungarianAssigner,
    MatchedPairs,
    PairContext,
    PredictionSet,
    SetTargets,
)
from ..utils.box_ops import generalized_box_iou
from .sparse_focal_loss import SparseFocalLoss


class SetCriterion:
    """Matching and losses of all layers, query groups and images at once.

    The losses and their names are those of mmdet's ``DETRHead`` (DETR,
    section 3.1), but nothing is done layer by layer: the classification loss
    is one pass over all logits and a correction at the matched ones, the box
    losses are taken of matched pairs alone, and the host waits for the
    device once.

    Args:
        assigner (BatchHungarianAssigner): Matches the sets that do not bring
            their pairs.
        loss_cls (nn.Module): mmdet's ``FocalLoss`` with sigmoid, or a module
            with the methods of :class:`SparseFocalLoss`.
        loss_bbox (nn.Module): Loss of boxes (cx, cy, w, h) in [0, 1].
        loss_iou (nn.Module): Loss of boxes (x1, y1, x2, y2) in pixels, or in
            [0, 1] if it has a true attribute ``normalized_boxes``.
        sync_cls_avg_factor (bool): Whether the classification loss is
            divided by the mean count over all ranks, too. Defaults to True.
        normalizer (str): What the losses are divided by: ``'targets'``, the
            number of targets times copies (DETR's official code), or
            ``'pairs'``, the number of matched pairs (mmdet). Defaults to
            ``'targets'``.

    Raises:
        UserError: If ``assigner``, ``loss_cls`` or ``normalizer`` is
            something else.
    """

    def __init__(
        self,
        assigner: BatchHungarianAssigner,
        loss_cls: nn.Module,
        loss_bbox: nn.Module,
        loss_iou: nn.Module,
        *,
        sync_cls_avg_factor: bool = True,
        normalizer: str = 'targets',
    ) -> None:
        if normalizer not in ('targets', 'pairs'):
            raise UserError(
                f"normalizer={normalizer!r} should be 'targets' or 'pairs'"
            )
        if not isinstance(assigner, BatchHungarianAssigner):
            raise UserError(
                f'train_cfg.assigner.type={type(assigner).__name__!r} matches '
                "one layer at a time; use 'BatchHungarianAssigner', which "
                'takes the same match_costs'
            )
        self.assigner = assigner
        self.loss_cls = set_classification_loss(loss_cls)
        self.loss_bbox = loss_bbox
        self.loss_iou = loss_iou
        self.sync_cls_avg_factor = sync_cls_avg_factor
        self.normalizer = normalizer

    def __call__(
        self, sets: Sequence[PredictionSet], targets: SetTargets
    ) -> dict[str, Tensor]:
        """Match the sets and compute their losses.

        Args:
            sets (Sequence[PredictionSet]): Predictions.
            targets (SetTargets): Ground truth.

        Returns:
            dict[str, Tensor]: Weighted losses ``loss_cls``, ``loss_bbox``,
            ``loss_iou`` of each layer, named as in mmdet, with the prefix of
            the set.
        """
        pending = self.assigner.start(sets, targets)
        negatives = [self._loss_cls(s).negative(s.cls_scores) for s in sets]
        matched = pending.result()
        local, synced = self._normalizers(sets, matched, targets)
        losses = {}
        for index, (predictions, pairs) in enumerate(
            zip(sets, matched, strict=True)
        ):
            terms = self._pair_losses(predictions, pairs, targets)
            terms['loss_cls'] = terms['loss_cls'] + negatives[index]
            for name, values in terms.items():
                is_synced = predictions.sync_normalizer and (
                    name != 'loss_cls' or self.sync_cls_avg_factor
                )
                divisor = (synced if is_synced else local)[index]
                values = values / divisor * predictions.loss_weight
                for layer, value in enumerate(values.unbind()):
                    losses[predictions.loss_name(layer, name)] = value
        return losses

    def _loss_cls(self, predictions: PredictionSet) -> Any:
        """Classification loss of a set."""
        if predictions.loss_cls is not None:
            return predictions.loss_cls
        return self.loss_cls

    def _normalizers(
        self,
        sets: Sequence[PredictionSet],
        matched: list[MatchedPairs],
        targets: SetTargets,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the sums of each set are divided by.

        Returns:
            tuple[list[Tensor], list[Tensor]]: For each set one number for
            each layer, at least 1: of this rank, and the mean over ranks.
        """
        counts = [
            pairs.counts
            if (predictions.normalizer or self.normalizer) == 'pairs'
            else [len(targets) * copies for copies in predictions.copies]
            for predictions, pairs in zip(sets, matched, strict=True)
        ]
        sizes = targets.image_sizes
        local = torch.tensor(list(chain(*counts)), dtype=sizes.dtype)
        local = local.to(sizes.device, non_blocking=True)
        lengths = [len(numbers) for numbers in counts]
        return tuple(
            list(numbers.clamp(min=1).split(lengths))
            for numbers in (local, reduce_mean(local))
        )

    def _pair_losses(
        self,
        predictions: PredictionSet,
        pairs: MatchedPairs,
        targets: SetTargets,
    ) -> dict[str, Tensor]:
        """Sum over the matched pairs of each layer.

        Returns:
            dict[str, Tensor]: ``loss_cls`` (what the pairs change of it),
            ``loss_bbox`` and ``loss_iou``, each has shape (num_layers, ).
        """
        boxes = predictions.bbox_preds.to(targets.image_sizes.dtype)
        if not len(pairs):  # zero, but part of the graph for DDP
            zeros = boxes.flatten(1).sum(1) * 0
            return dict(loss_cls=zeros, loss_bbox=zeros, loss_iou=zeros)
        rows = pairs.rows(*boxes.shape[1:3])
        preds = boxes.flatten(0, 2).index_select(0, rows)
        gts = targets.bboxes_normalized[pairs.target]
        corners = bbox_cxcywh_to_xyxy(preds), bbox_cxcywh_to_xyxy(gts)
        context = PairContext(pairs, corners[0].detach(), corners[1])
        labels = targets.labels[pairs.target]
        per_pair = dict(
            loss_cls=self._correction(predictions, rows, labels, context),
            loss_bbox=self._l1_loss(preds, gts),
            loss_iou=self._iou_loss(*corners, targets, pairs),
        )
        zeros = boxes.new_zeros(predictions.num_layers)
        return {
            name: zeros.index_add(0, pairs.layer, values)
            for name, values in per_pair.items()
        }

    def _correction(
        self,
        predictions: PredictionSet,
        rows: Tensor,
        labels: Tensor,
        context: PairContext,
    ) -> Tensor:
        """What positive targets change of the classification loss.

        Args:
            predictions (PredictionSet): Predictions.
            rows (Tensor): Matched queries among those of all layers and
                images, has shape (num_pairs, ).
            labels (Tensor): Classes of their targets, has shape
                (num_pairs, ).
            context (PairContext): The pairs and their boxes.

        Returns:
            Tensor: Of each pair, has shape (num_pairs, ).
        """
        if predictions.class_agnostic:
            labels = torch.zeros_like(labels)
        scores = predictions.cls_scores
        cells = rows * scores.shape[-1] + labels
        correction = self._loss_cls(predictions).correction(
            scores.flatten().index_select(0, cells), context
        )
        if predictions.pairs is None:
            return correction
        return correction / _multiplicity(cells, scores.numel())

    def _l1_loss(self, preds: Tensor, gts: Tensor) -> Tensor:
        """Box loss of matched boxes, has shape (num_pairs, )."""
        return self.loss_bbox(preds, gts, reduction_override='none').sum(-1)

    def _iou_loss(
        self,
        preds: Tensor,
        gts: Tensor,
        targets: SetTargets,
        pairs: MatchedPairs,
    ) -> Tensor:
        """IoU loss of boxes (x1, y1, x2, y2) in [0, 1], for each pair."""
        if getattr(self.loss_iou, 'normalized_boxes', False):
            return self.loss_iou(preds, gts, reduction_override='none')
        sizes = targets.image_sizes[pairs.image]
        preds, gts = preds * sizes, gts * sizes
        if type(self.loss_iou) is GIoULoss:
            giou = generalized_box_iou(preds, gts, self.loss_iou.eps)
            return (1 - giou) * self.loss_iou.loss_weight
        return self.loss_iou(preds, gts, reduction_override='none')


def set_classification_loss(loss_cls: nn.Module) -> Any:
    """Bring a classification loss into the form that sets are trained with.

    Args:
        loss_cls (nn.Module): mmdet's ``FocalLoss`` with sigmoid, or a module
            with the methods of :class:`SparseFocalLoss`.

    Returns:
        SparseFocalLoss | nn.Module: A loss with these methods.

    Raises:
        UserError: If it is something else.
    """
    if type(loss_cls) is FocalLoss:
        return SparseFocalLoss.from_mmdet(loss_cls)
    if not hasattr(loss_cls, 'correction'):
        raise UserError(
            f'bbox_head.loss_cls.type={type(loss_cls).__name__!r} cannot '
            "be used in set prediction; use 'FocalLoss'"
        )
    return loss_cls


def _multiplicity(cells: Tensor, num_cells: int) -> Tensor:
    """How often each cell occurs in the list, has the shape of ``cells``.

    A query paired with two targets of one class has one positive logit.
    """
    counts = torch.zeros(num_cells, device=cells.device)
    counts.index_add_(0, cells, torch.ones_like(cells, dtype=counts.dtype))
    return counts[cells]
