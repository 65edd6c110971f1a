# Copyright (c) mmdetr authors. All rights reserved.
import math
from copy import copy
from typing import Literal

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.settings import NonNegative, Positive, Share, checked

from ..task_modules.set_prediction import PairContext, PairTerms
from ..utils.box_ops import box_iou
from ..utils.precision import full_precision
from .sparse_focal_loss import focal_sum, focal_term


@MODELS.register_module()
class AlignLoss(nn.Module):
    """Cross entropy whose targets align classification and localization.

    Source: `Align-DETR <https://arxiv.org/abs/2304.07527>`_, sections 3.2
    (IA-BCE) and 3.3 (prime sample weighting). The target of a matched query
    at the class of its object is

        t = max(p**alpha * IoU**(1 - alpha), 0.01)

    where p is its predicted probability. Among the queries of one object the
    target and the box losses of the one with rank r by t, from 0 on, are
    weighted by exp(-r / tau). Everything else is background:
    p**gamma * BCE(p, 0). Gradients do not flow through the targets, but do
    through the weight of the background.

    Args:
        use_sigmoid (bool): Must be True; part of mmdet's interface.
        alpha (float): Weight of the probability in t. Defaults to 0.25.
        gamma (float): Focusing parameter of the background. Defaults to 2.
        tau (float): Temperature of the weights by rank; ``inf`` for equal
            weights. Defaults to 1.5.
        loss_weight (float): Weight of the loss. Defaults to 1.
    """

    min_target = 0.01

    @checked('AlignLoss')
    def __init__(
        self,
        use_sigmoid: Literal[True] = True,
        alpha: Share = 0.25,
        gamma: NonNegative = 2.0,
        tau: Positive = 1.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.tau = tau
        self.loss_weight = loss_weight

    @full_precision
    def negative(self, scores: Tensor) -> Tensor:
        """Loss of all queries as background, see ``ClassificationLoss``."""
        return self.loss_weight * focal_sum(scores, self.gamma)

    @full_precision
    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """Terms of the matched queries, see ``ClassificationLoss``."""
        quality = self._quality(scores, context)
        weights = self._rank_weights(quality, context)
        target = quality * weights
        positive = F.softplus(scores) - target * scores  # BCE(p, t)
        negative = focal_term(scores, self.gamma)
        return PairTerms((positive - negative) * self.loss_weight, weights)

    def without_ranks(self) -> 'AlignLoss':
        """The loss with equal weights for all queries of an object.

        For denoising queries, each of which has its own target.
        """
        loss = copy(self)
        loss.tau = math.inf
        return loss

    @torch.no_grad()
    def _quality(self, scores: Tensor, context: PairContext) -> Tensor:
        """The target t of each pair."""
        iou = box_iou(*context.pixels(), eps=1e-6, add_eps=False)
        prob = scores.sigmoid()
        quality = prob**self.alpha * iou ** (1 - self.alpha)
        return quality.clamp(min=self.min_target)

    @torch.no_grad()
    def _rank_weights(self, quality: Tensor, context: PairContext) -> Tensor:
        """Weight of each pair by its rank among those of its object."""
        if math.isinf(self.tau):
            return torch.ones_like(quality)
        ranks = ranks_within(context.by_target(), quality)
        return torch.exp(-ranks.to(quality.dtype) / self.tau)


def ranks_within(group: Tensor, values: Tensor) -> Tensor:
    """Rank values within their group, from 0 for the largest.

    Ties keep their order.

    Args:
        group (Tensor): Group indices, has shape (num, ).
        values (Tensor): Has shape (num, ).

    Returns:
        Tensor: Ranks, has shape (num, ).
    """
    order = values.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    first = torch.searchsorted(ordered, ordered)
    place = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).index_copy(0, order, place - first)
