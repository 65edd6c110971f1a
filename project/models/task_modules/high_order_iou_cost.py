# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ..utils.box_ops import box_iou
from .set_prediction.pairwise_cost import NormalizedCost


@TASK_UTILS.register_module()
class HighOrderIoUCost(NormalizedCost):
    """High-order matching cost, which prefers accurate boxes.

    Source: `Rank-DETR <https://arxiv.org/abs/2310.08854>`_, section 3.3:
    minus the probability of the target's class times IoU**alpha. To be used
    as the only cost, late in a training: IoU**4 hardly distinguishes boxes
    that are still poor.

    Args:
        alpha (float): Power of the IoU. Defaults to 4.
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
