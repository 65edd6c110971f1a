# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ..utils.box_ops import generalized_box_iou
from .set_prediction.pairwise_cost import NormalizedCost


@TASK_UTILS.register_module()
class NormalizedGIoUCost(NormalizedCost):
    """GIoU cost of detrex, on boxes in [0, 1].

    detrex adds a constant to the union and to the enclosing area, which on
    normalized boxes changes the value for small objects. The authors' cost is
    mmdet's ``IoUCost``.

    Args:
        eps (float): Added to both areas. Defaults to 1e-6.
        weight (float): Cost weight. Defaults to 1.
    """

    def __init__(self, eps: float = 1e-6, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.eps = eps

    def _cost(
        self, scores: Tensor, labels: Tensor, preds: Tensor, gts: Tensor
    ) -> Tensor:
        """Cost of boxes (x1, y1, x2, y2) in [0, 1]."""
        giou = generalized_box_iou(
            preds[:, None], gts[None], self.eps, add_eps=True
        )
        return -giou * self.weight
