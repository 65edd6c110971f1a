# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import replace
from typing import Any

from mmdet.models.task_modules import FocalLossCost
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from ..utils.precision import full_precision
from .set_prediction.pairwise_cost import pairwise_cost
from .set_prediction.structures import CostInputs


@TASK_UTILS.register_module()
class ProbabilityFocalCost(FocalLossCost):
    """mmdet's focal cost with the sigmoid applied twice.

    This is how DDQ matches its dense queries: with probabilities in place of
    logits.
    """

    @full_precision
    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the cost.

        Args:
            pred_instances (:obj:`InstanceData`): Logits ``scores``, has
                shape (num_preds, num_classes).
            gt_instances (:obj:`InstanceData`): ``labels``, has shape
                (num_gts, ).
            img_meta (dict, optional): Unused.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        probabilities = InstanceData(scores=pred_instances.scores.sigmoid())
        return super().__call__(probabilities, gt_instances, img_meta)

    @full_precision
    def batched_cost(self, inputs: CostInputs) -> Tensor:
        """Compute the cost for all layers at once.

        Args:
            inputs (CostInputs): Predictions and ground truth.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        cost = FocalLossCost(
            self.alpha, self.gamma, self.eps, self.binary_input, self.weight
        )
        return pairwise_cost(
            cost, replace(inputs, scores=inputs.scores.sigmoid())
        )
