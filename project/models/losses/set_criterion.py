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
from ..utils.compiling import not_compiled
from ..utils.precision import full_precision
from .sparse_focal_loss import SparseFocalLoss

_NORMALIZERS = ('targets', 'objects', 'pairs', 'weights')


class SetCriterion:
    """Matching and losses of all layers, query groups and images at once.

    The losses and their names are those of mmdet's ``DETRHead`` (DETR,
    section 3.1), but nothing is done layer by layer: the classification loss
    is one pass over all logits and a correction at the matched ones, the box
    losses are taken of matched pairs alone, and the host waits for the
    device once.

    Args:
        assigner (BatchHungarianAssigner): Matches the sets that bring
            neither their pairs nor an assigner of their own.
        loss_cls (nn.Module): mmdet's ``FocalLoss`` with sigmoid, or a module
            with the methods of :class:`SparseFocalLoss`.
        loss_bbox (nn.Module): Loss of boxes (cx, cy, w, h) in [0, 1].
        loss_iou (nn.Module): Loss of boxes (x1, y1, x2, y2) in pixels, or in
            [0, 1] if it has a true attribute ``normalized_boxes``.
        sync_cls_avg_factor (bool): Whether the classification loss is
            divided by the mean count over all ranks, too. Defaults to True.
        normalizer (str): What the losses are divided by: ``'targets'``, the
            number of targets times copies (DETR's official code);
            ``'objects'``, the number of targets however often they are
            matched; ``'pairs'``, the number of matched pairs (mmdet); or
            ``'weights'``, the sum of the pairs' weights. Defaults to
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
        if normalizer not in _NORMALIZERS:
            raise UserError(
                f'normalizer={normalizer!r} should be one of '
                f'{", ".join(map(repr, _NORMALIZERS))}'
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

    @not_compiled
    @full_precision
    def __call__(
        self, sets: Sequence[PredictionSet], targets: SetTargets
    ) -> dict[str, Tensor]:
        """Match the sets and compute their losses, in float32 at least.

        Not compiled: the assignments are found on the host.

        Args:
            sets (Sequence[PredictionSet]): Predictions.
            targets (SetTargets): Ground truth.

        Returns:
            dict[str, Tensor]: Weighted losses ``loss_cls``, ``loss_bbox``,
            ``loss_iou`` of each layer, named as in mmdet, with the prefix of
            the set.
        """
        sets = [predictions.assigned(targets) for predictions in sets]
        pending = self.assigner.start(sets, targets)
        negatives = [
            self._negative(predictions, targets) for predictions in sets
        ]
        matched = pending.result()
        terms = [
            self._pair_losses(predictions, pairs, targets)
            for predictions, pairs in zip(sets, matched, strict=True)
        ]
        weights = [of_set.pop('weights') for of_set in terms]
        local, synced = self._normalizers(sets, matched, targets, weights)
        losses = {}
        for index, predictions in enumerate(sets):
            of_set = terms[index]
            of_set['loss_cls'] = of_set['loss_cls'] + negatives[index]
            for name, values in of_set.items():
                is_synced = predictions.sync_normalizer and (
                    name != 'loss_cls' or self.sync_cls_avg_factor
                )
                divisor = (synced if is_synced else local)[index]
                values = values / divisor[:, None] * predictions.loss_weight
                losses.update(_named(predictions, name, values))
        return losses

    def _negative(
        self, predictions: PredictionSet, targets: SetTargets
    ) -> Tensor:
        """Classification loss if no query has an object.

        Returns:
            Tensor: Has shape (num_layers, num_images), where all images
            count as one unless the losses are of each image.
        """
        scores = predictions.cls_scores
        if predictions.valid is not None:  # surely background: no loss
            is_out = ~predictions.valid[..., None]
            scores = scores.masked_fill(is_out, -torch.inf)
        if predictions.per_image:
            scores = scores.flatten(0, 1)[:, None]
        sums = self._loss_cls(predictions).negative(scores)
        sums = sums.view(predictions.num_layers, -1)
        if predictions.skip_empty:
            has_targets = torch.tensor(targets.counts).clamp(max=1)
            sums = sums * has_targets.to(sums.device, non_blocking=True)
        return sums

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
        weights: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the sums of each set are divided by.

        Returns:
            tuple[list[Tensor], list[Tensor]]: For each set one number for
            each layer, at least 1: of this rank, and the mean over ranks.
        """
        kinds = [
            predictions.normalizer or self.normalizer for predictions in sets
        ]
        counts = [
            _count(kind, predictions, pairs, targets)
            for kind, predictions, pairs in zip(
                kinds, sets, matched, strict=True
            )
        ]
        sizes = targets.image_sizes
        local = torch.tensor(list(chain(*counts)), dtype=sizes.dtype)
        local = local.to(sizes.device, non_blocking=True)
        lengths = [len(numbers) for numbers in counts]
        if 'weights' in kinds:
            local = torch.cat(
                [
                    weight if kind == 'weights' else numbers
                    for kind, weight, numbers in zip(
                        kinds, weights, local.split(lengths), strict=True
                    )
                ]
            )
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
            ``loss_bbox`` and ``loss_iou``, each has shape
            (num_layers, num_images), where all images count as one unless
            the losses are of each image; and ``weights``, the sum of the
            pairs' weights, has shape (num_layers, ).
        """
        boxes = predictions.bbox_preds.to(targets.image_sizes.dtype)
        num_layers, num_images = boxes.shape[:2]
        if not predictions.per_image:
            num_images = 1
        names = ('loss_cls', 'loss_bbox', 'loss_iou')
        if not len(pairs):  # zero, but part of the graph for DDP
            zeros = boxes.flatten(1).sum(1, keepdim=True) * 0
            zeros = zeros.expand(-1, num_images)
            terms = dict.fromkeys(names, zeros)
            return {**terms, 'weights': zeros[:, 0].detach()}
        per_pair, weights = self._losses_of_pairs(
            predictions, boxes, pairs, targets
        )
        place = pairs.layer * num_images
        if predictions.per_image:
            place = place + pairs.image
        zeros = boxes.new_zeros(num_layers * num_images)
        terms = {
            name: zeros.index_add(0, place, values).view(num_layers, -1)
            for name, values in zip(names, per_pair, strict=True)
        }
        sums = boxes.new_zeros(num_layers).index_add(0, pairs.layer, weights)
        return {**terms, 'weights': sums}

    def _losses_of_pairs(
        self,
        predictions: PredictionSet,
        boxes: Tensor,
        pairs: MatchedPairs,
        targets: SetTargets,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Losses of each pair, and its weight.

        Returns:
            tuple: The three losses, those of boxes weighted, and the
            weights, each has shape (num_pairs, ).
        """
        rows = pairs.rows(*boxes.shape[1:3])
        preds = boxes.flatten(0, 2).index_select(0, rows)
        gts = targets.bboxes_normalized[pairs.target]
        corners = bbox_cxcywh_to_xyxy(preds), bbox_cxcywh_to_xyxy(gts)
        sizes = targets.image_sizes[pairs.image]
        context = PairContext(
            pairs, corners[0].detach(), corners[1], sizes, len(targets)
        )
        cells = self._cells(predictions, rows, targets.labels[pairs.target])
        scores = predictions.cls_scores.flatten().index_select(0, cells)
        loss_bbox = self._l1_loss(preds, gts)
        loss_iou = self._iou_loss(predictions, *corners, sizes)
        loss_cls = self._loss_cls(predictions)
        if hasattr(loss_cls, 'pair_weights'):
            weights = loss_cls.pair_weights(scores, context)
            loss_bbox, loss_iou = loss_bbox * weights, loss_iou * weights
        else:
            weights = torch.ones_like(loss_bbox).detach()
        change = loss_cls.correction(scores, context)
        if predictions.pairs is not None or predictions.assigner is not None:
            num_rows = boxes.shape[:3].numel()
            change = change * _decides_class(rows, pairs, num_rows)
        return (change, loss_bbox, loss_iou), weights

    @staticmethod
    def _cells(
        predictions: PredictionSet, rows: Tensor, labels: Tensor
    ) -> Tensor:
        """Where the logits of matched queries at their targets' classes lie.

        Args:
            predictions (PredictionSet): Predictions.
            rows (Tensor): Matched queries among those of all layers and
                images, has shape (num_pairs, ).
            labels (Tensor): Classes of their targets, likewise.

        Returns:
            Tensor: Indices into all logits, has shape (num_pairs, ).
        """
        if predictions.class_agnostic:
            labels = torch.zeros_like(labels)
        return rows * predictions.cls_scores.shape[-1] + labels

    def _l1_loss(self, preds: Tensor, gts: Tensor) -> Tensor:
        """Box loss of matched boxes, has shape (num_pairs, )."""
        return self.loss_bbox(preds, gts, reduction_override='none').sum(-1)

    def _iou_loss(
        self,
        predictions: PredictionSet,
        preds: Tensor,
        gts: Tensor,
        sizes: Tensor,
    ) -> Tensor:
        """IoU loss of boxes (x1, y1, x2, y2) in [0, 1], for each pair."""
        loss_iou = predictions.loss_iou or self.loss_iou
        if getattr(loss_iou, 'normalized_boxes', False):
            return loss_iou(preds, gts, reduction_override='none')
        preds, gts = preds * sizes, gts * sizes
        if type(loss_iou) is GIoULoss:
            giou = generalized_box_iou(preds, gts, loss_iou.eps)
            return (1 - giou) * loss_iou.loss_weight
        return loss_iou(preds, gts, reduction_override='none')


def _count(
    kind: str,
    predictions: PredictionSet,
    pairs: MatchedPairs,
    targets: SetTargets,
) -> list[int]:
    """What the losses of each layer are divided by; weights come later."""
    if kind == 'pairs':
        return pairs.counts
    if kind == 'targets':
        return [len(targets) * copies for copies in predictions.copies]
    return [len(targets)] * predictions.num_layers


def _named(
    predictions: PredictionSet, term: str, values: Tensor
) -> dict[str, Tensor | list[Tensor]]:
    """Name the values of shape (num_layers, num_images)."""
    losses = {}
    for layer, of_layer in enumerate(values.unbind()):
        name = predictions.loss_name(layer, term)
        if name is not None:
            of_images = list(of_layer.unbind())
            is_list = predictions.per_image
            losses[name] = of_images if is_list else of_images[0]
    return losses


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


def _decides_class(rows: Tensor, pairs: MatchedPairs, num_rows: int) -> Tensor:
    """Whether a pair's target is the last of its query's targets.

    A query learns one class. In the authors' code of DETA, the first method
    whose queries have several targets, the target written last decides.

    Args:
        rows (Tensor): Query of each pair, has shape (num_pairs, ).
        pairs (MatchedPairs): The pairs.
        num_rows (int): Number of queries.

    Returns:
        Tensor: Has shape (num_pairs, ).
    """
    last = torch.full((num_rows,), -1, device=rows.device)
    last.scatter_reduce_(0, rows, pairs.target, 'amax')
    return last[rows] == pairs.target
