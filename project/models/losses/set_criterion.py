# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import torch
from mmdet.models.losses import FocalLoss, GIoULoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.host_copy import send
from project.utils.settings import checked

from ..task_modules.set_prediction import (
    ClassificationLoss,
    MatchedPairs,
    PairContext,
    PendingMatch,
    PredictionSet,
    SetTargets,
)
from ..utils.box_ops import generalized_box_iou
from ..utils.compiling import not_compiled
from ..utils.precision import full_precision
from .sparse_focal_loss import SparseFocalLoss

Normalizer = Literal['targets', 'objects', 'pairs', 'weights']


class SetCriterion:
    """Losses of all layers, query groups and images at once.

    The losses and their names are those of mmdet's ``DETRHead`` (DETR,
    section 3.1), but computed in one batch: the classification loss is one
    pass over all logits plus a correction at the matched ones, the box losses
    are computed for matched pairs only, and host and device synchronize once.

    Args:
        loss_cls (nn.Module): mmdet's ``FocalLoss`` with sigmoid, or a
            ``ClassificationLoss``.
        loss_bbox (nn.Module): Loss of boxes (cx, cy, w, h) in [0, 1].
        loss_iou (nn.Module): Loss of boxes (x1, y1, x2, y2) in pixels, or in
            [0, 1] if its attribute ``normalized_boxes`` is True.
        sync_cls_avg_factor (bool): Whether the divisor of the classification
            loss is averaged over all ranks, too. Defaults to True.
        normalizer (str): Divisor of the losses: ``'targets'``, the number of
            targets times copies (DETR's official code); ``'objects'``, the
            number of targets, without copies; ``'pairs'``, the number of
            matched pairs (mmdet); or ``'weights'``, the sum of the pairs'
            weights. Defaults to ``'targets'``.

    Raises:
        UserError: If ``loss_cls`` is another loss.
    """

    @checked('model.bbox_head')
    def __init__(
        self,
        loss_cls: nn.Module,
        loss_bbox: nn.Module,
        loss_iou: nn.Module,
        *,
        sync_cls_avg_factor: bool = True,
        normalizer: Normalizer = 'targets',
    ) -> None:
        classification_loss(loss_cls)
        self.loss_cls = loss_cls
        self.loss_bbox = loss_bbox
        self.loss_iou = loss_iou
        self.sync_cls_avg_factor = sync_cls_avg_factor
        self.normalizer = normalizer

    @not_compiled
    @full_precision
    def __call__(
        self, sets: Sequence[PredictionSet], targets: SetTargets
    ) -> dict[str, Tensor | list[Tensor]]:
        """Pair the sets and compute their losses, in float32 at least.

        Not compiled, since matching runs on the host.

        Args:
            sets (Sequence[PredictionSet]): Predictions, how they are paired
                and how they are scored.
            targets (SetTargets): Ground truth.

        Returns:
            dict[str, Tensor | list[Tensor]]: Weighted losses ``loss_cls``,
            ``loss_bbox``, ``loss_iou`` of each layer, named as in mmdet, with
            the prefix of the set; lists for losses per image.
        """
        pending = PendingMatch(sets, targets)
        negatives = [self._negative(each, targets) for each in sets]
        matched = pending.result()
        pair_sums = [
            self._pair_sums(each, pairs, targets)
            for each, pairs in zip(sets, matched, strict=True)
        ]
        sums, weights = zip(*pair_sums, strict=True)
        local, synced = self._normalizers(sets, matched, targets, weights)
        losses = {}
        for index, each in enumerate(sets):
            sums[index]['loss_cls'] = (
                sums[index]['loss_cls'] + negatives[index]
            )
            for term, values in sums[index].items():
                is_synced = each.scoring.sync_normalizer and (
                    term != 'loss_cls' or self.sync_cls_avg_factor
                )
                divisor = (synced if is_synced else local)[index]
                values = values / divisor[:, None] * each.scoring.loss_weight
                losses.update(_named(each, term, values))
        return losses

    def _negative(self, each: PredictionSet, targets: SetTargets) -> Tensor:
        """Classification loss of all queries as background.

        Returns:
            Tensor: Has shape (num_layers, num_images), with one image for all
            unless losses are per image.
        """
        predictions, scoring = each.predictions, each.scoring
        scores = predictions.cls_scores
        if predictions.valid is not None:  # probability 0: no loss
            is_out = ~predictions.valid[..., None]
            scores = scores.masked_fill(is_out, -torch.inf)
        if scoring.per_image:
            scores = scores.flatten(0, 1)[:, None]
        sums = self._loss_cls(each).negative(scores)
        sums = sums.view(predictions.num_layers, -1)
        if scoring.skip_empty:
            has_targets = torch.tensor(targets.counts).clamp(max=1)
            sums = sums * send(has_targets, sums.device)
        return sums

    def _loss_cls(self, each: PredictionSet) -> ClassificationLoss:
        """Classification loss of a set."""
        return classification_loss(each.scoring.loss_cls or self.loss_cls)

    def _normalizers(
        self,
        sets: Sequence[PredictionSet],
        matched: Sequence[MatchedPairs],
        targets: SetTargets,
        weights: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Divisors of each set.

        Returns:
            tuple[list[Tensor], list[Tensor]]: For each set one number per
            layer, at least 1: of this rank, and the mean over ranks.
        """
        kinds = [each.scoring.normalizer or self.normalizer for each in sets]
        counts = [
            _count(kind, each, pairs, targets)
            for kind, each, pairs in zip(kinds, sets, matched, strict=True)
        ]
        sizes = targets.image_sizes
        local = torch.tensor(list(chain(*counts)), dtype=sizes.dtype)
        local = send(local, sizes.device)
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
        of_this_rank, mean = (
            list(numbers.clamp(min=1).split(lengths))
            for numbers in (local, reduce_mean(local))
        )
        return of_this_rank, mean

    def _pair_sums(
        self, each: PredictionSet, pairs: MatchedPairs, targets: SetTargets
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Sum over the matched pairs of each layer.

        Returns:
            tuple[dict[str, Tensor], Tensor]: ``loss_cls`` (the correction of
            the background loss), ``loss_bbox`` and ``loss_iou``, each has
            shape (num_layers, num_images), with one image for all unless
            losses are per image; and the sum of the pairs' weights, has shape
            (num_layers, ).
        """
        boxes = each.predictions.bbox_preds.to(targets.image_sizes.dtype)
        num_layers, num_images = boxes.shape[:2]
        if not each.scoring.per_image:
            num_images = 1
        names = ('loss_cls', 'loss_bbox', 'loss_iou')
        if not len(pairs):  # zero, but in the graph for DDP
            zeros = boxes.flatten(1).sum(1, keepdim=True) * 0
            zeros = zeros.expand(-1, num_images)
            return dict.fromkeys(names, zeros), zeros[:, 0].detach()
        per_pair, weights = self._losses_of_pairs(each, boxes, pairs, targets)
        place = pairs.layer * num_images
        if each.scoring.per_image:
            place = place + pairs.image
        zeros = boxes.new_zeros(num_layers * num_images)
        sums = {
            name: zeros.index_add(0, place, values).view(num_layers, -1)
            for name, values in zip(names, per_pair, strict=True)
        }
        zeros = boxes.new_zeros(num_layers)
        return sums, zeros.index_add(0, pairs.layer, weights)

    def _losses_of_pairs(
        self,
        each: PredictionSet,
        boxes: Tensor,
        pairs: MatchedPairs,
        targets: SetTargets,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Losses of each pair, and its weight.

        Returns:
            tuple: The three losses, weighted for boxes, and the weights, each
            has shape (num_pairs, ).
        """
        rows = pairs.rows(*boxes.shape[1:3])
        preds = boxes.flatten(0, 2).index_select(0, rows)
        gts = targets.bboxes_normalized[pairs.target]
        corners = bbox_cxcywh_to_xyxy(preds), bbox_cxcywh_to_xyxy(gts)
        sizes = targets.image_sizes[pairs.image]
        context = PairContext(
            pairs, corners[0].detach(), corners[1], sizes, len(targets)
        )
        labels = targets.labels[pairs.target]
        if each.predictions.class_agnostic:
            labels = torch.zeros_like(labels)
        logits = each.predictions.cls_scores
        cells = rows * logits.shape[-1] + labels
        scores = logits.flatten().index_select(0, cells)
        change, weights = self._loss_cls(each).pair_terms(scores, context)
        change = change * _decides_class(rows, pairs, boxes[..., 0].numel())
        loss_bbox = self.loss_bbox(preds, gts, reduction_override='none').sum(
            -1
        )
        loss_iou = self._iou_loss(each, *corners, sizes)
        if weights is None:
            weights = torch.ones_like(loss_bbox).detach()
        else:
            loss_bbox, loss_iou = loss_bbox * weights, loss_iou * weights
        return (change, loss_bbox, loss_iou), weights

    def _iou_loss(
        self, each: PredictionSet, preds: Tensor, gts: Tensor, sizes: Tensor
    ) -> Tensor:
        """IoU loss of each pair of boxes (x1, y1, x2, y2) in [0, 1]."""
        loss_iou: Any = each.scoring.loss_iou or self.loss_iou
        if not getattr(loss_iou, 'normalized_boxes', False):
            preds, gts = preds * sizes, gts * sizes
        if type(loss_iou) is GIoULoss:
            giou = generalized_box_iou(preds, gts, loss_iou.eps)
            return (1 - giou) * loss_iou.loss_weight
        return loss_iou(preds, gts, reduction_override='none')


def _count(
    kind: str, each: PredictionSet, pairs: MatchedPairs, targets: SetTargets
) -> list[int]:
    """Divisor of each layer, except for weights."""
    if kind == 'pairs':
        return pairs.counts
    num_layers = each.predictions.num_layers
    if kind == 'targets':
        copies = each.pairing.copies(num_layers)
        return [len(targets) * number for number in copies]
    return [len(targets)] * num_layers


def _named(
    each: PredictionSet, term: str, values: Tensor
) -> dict[str, Tensor | list[Tensor]]:
    """Name losses of shape (num_layers, num_images)."""
    losses = {}
    for layer, of_layer in enumerate(values.unbind()):
        name = each.predictions.loss_name(layer, term)
        if name is not None:
            of_images = list(of_layer.unbind())
            is_list = each.scoring.per_image
            losses[name] = of_images if is_list else of_images[0]
    return losses


def classification_loss(
    loss_cls: nn.Module | ClassificationLoss,
) -> ClassificationLoss:
    """Convert a classification loss to a ``ClassificationLoss``.

    Its weight follows that of the module, even if it is changed later.

    Args:
        loss_cls (nn.Module): mmdet's ``FocalLoss`` with sigmoid, or a
            ``ClassificationLoss``.

    Returns:
        ClassificationLoss: The loss.

    Raises:
        UserError: If it is another loss.
    """
    if type(loss_cls) is FocalLoss:
        return SparseFocalLoss(loss_cls)
    if not isinstance(loss_cls, ClassificationLoss):
        raise UserError(
            f'bbox_head.loss_cls.type={type(loss_cls).__name__!r} cannot '
            "be used in set prediction; use 'FocalLoss'"
        )
    return loss_cls


def _decides_class(rows: Tensor, pairs: MatchedPairs, num_rows: int) -> Tensor:
    """Whether a pair's target is the last of its query's targets.

    A query with several targets (DETA) is trained on the class of the last
    one, which overwrites the others in the authors' code.

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
