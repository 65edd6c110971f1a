# Copyright (c) mmdetr authors. All rights reserved.
import torch
from torch import Tensor

from ..task_modules.set_prediction import PairContext, PairTerms
from ..utils.box_ops import box_iou
from ..utils.precision import full_precision
from .sparse_focal_loss import focal_sum, focal_term, quality_focal_term


class DenseQualityLoss:
    """Quality focal loss of DDQ's dense queries.

    Source: `DDQ <https://arxiv.org/abs/2303.12776>`_, auxiliary loss for
    dense queries; values are those of mmdet's ``DDQAuxLoss``. The target of
    a matched query is m = p**alpha * IoU**power, scaled so that the largest
    m of an object's queries is their largest IoU; the loss is

        |m - p|**beta * BCE(p, m)

    and everywhere else p**beta * BCE(p, 0). Box losses are weighted by m. No
    gradient flows through m.

    Args:
        alpha (float): Power of the probability. Defaults to 1.
        power (float): Power of the IoU. Defaults to 6.
        beta (float): Focusing parameter. Defaults to 2.
        loss_weight (float): Weight of the loss. Defaults to 1.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        power: float = 6.0,
        beta: float = 2.0,
        loss_weight: float = 1.0,
    ) -> None:
        self.alpha = alpha
        self.power = power
        self.beta = beta
        self.loss_weight = loss_weight

    @full_precision
    def negative(self, scores: Tensor) -> Tensor:
        """Loss of all queries as background, see ``ClassificationLoss``."""
        return self.loss_weight * focal_sum(scores, self.beta)

    @full_precision
    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """Terms of the matched queries, see ``ClassificationLoss``."""
        target = self._quality(scores, context)
        positive = quality_focal_term(scores, target, self.beta)
        negative = focal_term(scores, self.beta)
        return PairTerms((positive - negative) * self.loss_weight, target)

    @torch.no_grad()
    def _quality(self, scores: Tensor, context: PairContext) -> Tensor:
        """The target m of each pair."""
        iou = box_iou(*context.pixels(), eps=1e-6, add_eps=False)
        prob = scores.sigmoid()
        quality = prob**self.alpha * iou**self.power
        group = context.by_target()
        num_groups = len(context.pairs.counts) * context.num_targets

        def largest(values: Tensor) -> Tensor:
            """Largest of the non-negative values of each pair's object."""
            of_groups = values.new_zeros(num_groups)
            return of_groups.scatter_reduce(0, group, values, 'amax')[group]

        return quality / (largest(quality) + 1e-7) * largest(iou)
