"""A loss, which a config names in place of mmdet's."""

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class MyMethodLoss(nn.Module):
    """L1 distance of boxes, relative to the size of the object.

    Args:
        reduction (str): ``'none'``, ``'mean'`` or ``'sum'``. Defaults to
            ``'mean'``.
        loss_weight (float): Defaults to 1.
    """

    def __init__(
        self, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss of matched boxes.

        Args:
            pred (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (num_pairs, 4).
            target (Tensor): Boxes of the same kind and shape.
            weight (Tensor, optional): Has shape (num_pairs, 4).
            avg_factor (float, optional): Divisor of the sum.
            reduction_override (str, optional): Overrides ``reduction``.
        """
        size = torch.cat([target[..., 2:]] * 2, -1).clamp(min=0.01)
        loss = (pred - target).abs() / size
        reduction = reduction_override or self.reduction
        loss = weight_reduce_loss(loss, weight, reduction, avg_factor)
        return self.loss_weight * loss
