# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss
from torch import Tensor

from ..task_modules.set_prediction import PairContext, PairTerms
from ..utils.precision import full_precision


class SparseFocalLoss:
    """Sigmoid focal loss for targets that are almost all 0.

    The sum of mmdet's ``FocalLoss`` (RetinaNet, equation 5) in two parts: the
    loss of all queries as background, which needs no matching and so runs
    during the matching, and the correction at the positive targets. No
    one-hot targets are built.

    Args:
        loss (FocalLoss): mmdet's module, which holds the settings.
    """

    def __init__(self, loss: FocalLoss) -> None:
        self.loss = loss

    @full_precision
    def negative(self, scores: Tensor) -> Tensor:
        """Loss of all queries as background, see ``ClassificationLoss``."""
        weight = (1 - self.loss.alpha) * self.loss.loss_weight
        return weight * focal_sum(scores, self.loss.gamma)

    @full_precision
    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """Terms of the matched queries, see ``ClassificationLoss``."""
        alpha, gamma = self.loss.alpha, self.loss.gamma
        positive = alpha * focal_term(-scores, gamma)
        negative = (1 - alpha) * focal_term(scores, gamma)
        return PairTerms((positive - negative) * self.loss.loss_weight)


def focal_sum(logits: Tensor, gamma: float) -> Tensor:
    """Sum of :func:`focal_term` over all but the first axis.

    Args:
        logits (Tensor): Has shape
            (num_layers, bs, num_queries, num_classes).
        gamma (float): As in :func:`focal_term`.

    Returns:
        Tensor: Has shape (num_layers, ).
    """
    return _FocalTermSum.apply(logits, gamma)


def focal_term(logits: Tensor, gamma: float) -> Tensor:
    """Loss p**gamma * -log(1 - p) of negative targets, before weighting.

    Args:
        logits (Tensor): Of any shape.
        gamma (float): Focusing parameter.

    Returns:
        Tensor: Has the same shape.
    """
    return logits.sigmoid() ** gamma * F.softplus(logits)


def quality_focal_term(
    logits: Tensor, quality: Tensor, gamma: float
) -> Tensor:
    """Loss |t - p|**gamma * BCE(p, t) of targets t, before weighting.

    Source: `GFL <https://arxiv.org/abs/2006.04388>`_, equation 2.

    Args:
        logits (Tensor): Of any shape.
        quality (Tensor): Targets t in [0, 1], has the same shape.
        gamma (float): Focusing parameter.

    Returns:
        Tensor: Has the same shape.
    """
    gap = (quality - logits.sigmoid()).abs() ** gamma
    return gap * (F.softplus(logits) - quality * logits)


class _FocalTermSum(torch.autograd.Function):
    """See :func:`focal_sum`.

    The forward pass also computes the gradient, so that one tensor is saved
    instead of five.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, gamma: float) -> Tensor:
        """Compute the sum, and the gradient of each element.

        That is p**gamma * (gamma * (1 - p) * -log(1 - p) + p), computed in
        place, since allocation would take longer than the arithmetic.
        """
        prob = scores.sigmoid()
        focus = prob**gamma
        gradient = F.softplus(scores)
        total = torch.linalg.vecdot(focus.flatten(1), gradient.flatten(1))
        gradient.addcmul_(gradient, prob, value=-1).mul_(gamma)
        gradient.add_(prob).mul_(focus)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Scale the stored gradient by that of each layer's sum."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None, None, None], None
