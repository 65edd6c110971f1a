# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from ..utils.box_ops import box_iou
from ..utils.precision import full_precision
from .set_prediction.pairwise_cost import normalized_corners
from .set_prediction.structures import CostInputs


@TASK_UTILS.register_module()
class HighOrderIoUCost(BaseMatchCost):
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

    @full_precision
    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs,
    ) -> Tensor:
        """Compute the cost.

        Args:
            pred_instances (:obj:`InstanceData`): Logits ``scores``, has
                shape (num_preds, num_classes), and ``bboxes`` in pixels
                (x1, y1, x2, y2), has shape (num_preds, 4).
            gt_instances (:obj:`InstanceData`): ``labels``, has shape
                (num_gts, ), and ``bboxes`` in pixels, has shape
                (num_gts, 4).
            img_meta (dict): Has ``img_shape``, (h, w) of the image.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        return self._cost(
            pred_instances.scores,
            gt_instances.labels,
            *normalized_corners(pred_instances, gt_instances, img_meta),
        )

    @full_precision
    def batched_cost(self, inputs: CostInputs) -> Tensor:
        """Compute the cost of all layers of an image.

        Args:
            inputs (CostInputs): Predictions and ground truth.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        return self._cost(inputs.scores, inputs.labels, *inputs.corners())

    def _cost(
        self, scores: Tensor, labels: Tensor, preds: Tensor, gts: Tensor
    ) -> Tensor:
        """Cost of boxes (x1, y1, x2, y2) in [0, 1]."""
        iou = box_iou(preds[:, None], gts[None], self.eps)
        prob = scores[:, labels].sigmoid()
        return -prob * iou**self.alpha * self.weight
