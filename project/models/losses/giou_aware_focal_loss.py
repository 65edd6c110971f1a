# Copyright (c) mmdetr authors. All rights reserved.
from typing import Literal

from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.settings import NonNegative, Share, checked

from ..task_modules.set_prediction import PairContext, PairTerms
from ..utils.box_ops import generalized_box_iou
from ..utils.precision import full_precision
from .sparse_focal_loss import focal_sum, focal_term, quality_focal_term


@MODELS.register_module()
class GIoUAwareFocalLoss(nn.Module):
    """Focal loss whose targets are the qualities of the predicted boxes.

    Source: `Rank-DETR <https://arxiv.org/abs/2310.08854>`_, section 3.3
    (GIoU-aware classification loss), with the balance ``alpha`` of the
    authors' code. The target of a matched query at the class of its object
    is t = (GIoU + 1) / 2 instead of 1; the loss is

        alpha * |t - p|**gamma * BCE(p, t)

    and everywhere else (1 - alpha) * p**gamma * BCE(p, 0), as in the focal
    loss. No gradient flows through t.

    Args:
        use_sigmoid (bool): Must be True; part of mmdet's interface.
        alpha (float): Weight of matched queries; 1 - alpha of all else.
            Defaults to 0.25.
        gamma (float): Focusing parameter. Defaults to 2.
        eps (float): Added to the areas that GIoU divides by, of boxes in
            [0, 1]. Defaults to 1e-6.
        reduction (str): Of :meth:`forward`: ``'none'``, ``'mean'`` or
            ``'sum'``. Defaults to ``'mean'``.
        loss_weight (float): Weight of the loss. Defaults to 1.
    """

    @checked('GIoUAwareFocalLoss')
    def __init__(
        self,
        use_sigmoid: Literal[True] = True,
        alpha: Share = 0.25,
        gamma: NonNegative = 2.0,
        eps: NonNegative = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps
        self.reduction = reduction
        self.loss_weight = loss_weight

    @full_precision
    def forward(
        self,
        pred: Tensor,
        target: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss for given qualities, as mmdet's quality losses.

        Args:
            pred (Tensor): Logits, has shape (num_preds, num_classes).
            target (tuple[Tensor, Tensor]): Labels, ``num_classes`` where
                there is no object, and qualities t in [0, 1], each has shape
                (num_preds, ).
            weight (Tensor, optional): Has shape (num_preds, ).
            avg_factor (float, optional): Divisor of the sum.
            reduction_override (str, optional): Overrides ``reduction``.

        Returns:
            Tensor: The reduced loss; without reduction, has shape
            (num_preds, ).
        """
        labels, quality = target
        loss = (1 - self.alpha) * focal_term(pred, self.gamma).sum(1)
        positive = (labels < pred.shape[1]).nonzero().squeeze(1)
        matched = pred[positive, labels[positive]]
        difference = self._difference(matched, quality[positive])
        loss = loss.index_add(0, positive, difference)
        reduction = reduction_override or self.reduction
        loss = weight_reduce_loss(loss, weight, reduction, avg_factor)
        return self.loss_weight * loss

    @full_precision
    def negative(self, scores: Tensor) -> Tensor:
        """Loss of all queries as background, see ``ClassificationLoss``."""
        weight = (1 - self.alpha) * self.loss_weight
        return weight * focal_sum(scores, self.gamma)

    @full_precision
    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """Terms of the matched queries, see ``ClassificationLoss``."""
        giou = generalized_box_iou(
            context.bboxes, context.gt_bboxes, self.eps, add_eps=True
        )
        quality = (giou + 1) / 2
        difference = self._difference(scores, quality)
        return PairTerms(difference * self.loss_weight)

    def _difference(self, scores: Tensor, quality: Tensor) -> Tensor:
        """Loss of matched queries minus their loss as background."""
        positive = quality_focal_term(scores, quality, self.gamma)
        negative = focal_term(scores, self.gamma)
        return self.alpha * positive - (1 - self.alpha) * negative
