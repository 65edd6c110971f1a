# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from ..utils.box_ops import generalized_box_iou
from ..utils.precision import full_precision
from .set_prediction.pairwise_cost import normalized_corners
from .set_prediction.structures import CostInputs


@TASK_UTILS.register_module()
class NormalizedGIoUCost(BaseMatchCost):
    """GIoU cost of detrex, on boxes in [0, 1].

    detrex adds a constant to the union and to the enclosing area, which on
    normalised boxes changes the value for small objects. mmdet's ``IoUCost``
    is the authors'.

    Args:
        eps (float): What is added to both areas. Defaults to 1e-6.
        weight (float): Cost weight. Defaults to 1.
    """

    def __init__(self, eps: float = 1e-6, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
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
            pred_instances (:obj:`InstanceData`): ``bboxes`` in pixels
                (x1, y1, x2, y2), has shape (num_preds, 4).
            gt_instances (:obj:`InstanceData`): ``bboxes`` in pixels, has
                shape (num_gts, 4).
            img_meta (dict): Has ``img_shape``, (h, w) of the image.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        return self._cost(
            *normalized_corners(pred_instances, gt_instances, img_meta)
        )

    @full_precision
    def batched_cost(self, inputs: CostInputs) -> Tensor:
        """Compute the cost of all layers of an image.

        Args:
            inputs (CostInputs): Predictions and ground truth.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        return self._cost(*inputs.corners())

    def _cost(self, preds: Tensor, gts: Tensor) -> Tensor:
        """Cost of boxes (x1, y1, x2, y2) in [0, 1]."""
        giou = generalized_box_iou(
            preds[:, None], gts[None], self.eps, add_eps=True
        )
        return -giou * self.weight
