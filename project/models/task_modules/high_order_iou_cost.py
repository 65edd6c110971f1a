# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ..utils.box_ops import box_iou
from .set_prediction.pairwise_cost import NormalizedCost


@TASK_UTILS.register_module()
class HighOrderIoUCost(NormalizedCost):
    """Matching cost that puts the most accurate box first.

    Source: `Rank-DETR <https://arxiv.org/abs/2310.08854>`_, section 3.3
    (high-order matching cost): minus the probability of the target's class
    times IoU to a high power. It is meant to stand alone, and for late in a
    training: while boxes are still poor, IoU**4 tells them hardly apart.

    Args:
        alpha (float): The power of IoU. Defaults to 4.
        eps (float): Added to the union of boxes in [0, 1]. Defaults to 1e-6.
        weight (float): Cost weight. Defaults to 1.
    """

    def __init__(
        self, alpha: float = 4.0, eps: float = 1e-6, weight: float = 1.0
    ) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.eps = eps

    def _cost(
        self, scores: Tensor, labels: Tensor, preds: Tensor, gts: Tensor
    ) -> Tensor:
        """Cost of boxes (x1, y1, x2, y2) in [0, 1]."""
        iou = box_iou(preds[:, None], gts[None], self.eps)
        prob = scores[:, labels].sigmoid()
        return -prob * iou**self.alpha * self.weight
