# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..utils.box_ops import generalized_box_iou
from ..utils.precision import full_precision


@MODELS.register_module()
class NormalizedGIoULoss(nn.Module):
    """GIoU loss of detrex, on boxes in [0, 1].

    See ``NormalizedGIoUCost`` for how it differs from mmdet's ``GIoULoss``.

    Args:
        eps (float): Added to the union and the enclosing area. Defaults to
            1e-6.
        reduction (str): ``'none'``, ``'mean'`` or ``'sum'``. Defaults to
            ``'mean'``.
        loss_weight (float): Weight of the loss. Defaults to 1.
    """

    # The criterion then passes boxes in [0, 1] instead of pixels.
    normalized_boxes = True

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.reduction = reduction
        self.loss_weight = loss_weight

    @full_precision
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
            pred (Tensor): Boxes (x1, y1, x2, y2) in [0, 1], has shape
                (num_pairs, 4).
            target (Tensor): Boxes of the same kind and shape.
            weight (Tensor, optional): Has shape (num_pairs, ).
            avg_factor (float, optional): Divisor of the sum.
            reduction_override (str, optional): Overrides ``reduction``.

        Returns:
            Tensor: The reduced loss.
        """
        loss = 1 - generalized_box_iou(pred, target, self.eps, add_eps=True)
        reduction = reduction_override or self.reduction
        loss = weight_reduce_loss(loss, weight, reduction, avg_factor)
        return self.loss_weight * loss
