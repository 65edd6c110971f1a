# Copyright (c) mmdetr authors. All rights reserved.
"""mmdet's match costs for all layers of an image at once."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.task_modules import BBoxL1Cost, FocalLossCost, IoUCost
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.structures import InstanceData
from torch import Tensor

from ...utils.box_ops import generalized_box_iou
from ...utils.precision import full_precision
from .protocols import BatchedCost
from .structures import CostInputs


class NormalizedCost(BaseMatchCost):
    """Base of match costs of boxes in [0, 1]; see :meth:`_cost`."""

    @full_precision
    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the cost of one layer, for mmdet's assigners.

        Args:
            pred_instances (:obj:`InstanceData`): ``bboxes`` in pixels
                (x1, y1, x2, y2), has shape (num_preds, 4), and logits
                ``scores``, has shape (num_preds, num_classes).
            gt_instances (:obj:`InstanceData`): ``bboxes`` in pixels, has
                shape (num_gts, 4), and ``labels``, has shape (num_gts, ).
            img_meta (dict): Has ``img_shape``, (h, w) of the image.

        Returns:
            Tensor: Cost, has shape (num_preds, num_gts).
        """
        height, width = img_meta['img_shape'][:2]
        gts = gt_instances.bboxes
        size = torch.tensor([width, height] * 2, dtype=gts.dtype)
        size = size.to(gts.device, non_blocking=True)
        return self._cost(
            pred_instances.get('scores'),
            gt_instances.get('labels'),
            pred_instances.bboxes / size,
            gts / size,
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

    @abstractmethod
    def _cost(
        self, scores: Tensor, labels: Tensor, preds: Tensor, gts: Tensor
    ) -> Tensor:
        """Cost of boxes (x1, y1, x2, y2) in [0, 1]."""


@full_precision
def pairwise_cost(match_cost: BaseMatchCost, inputs: CostInputs) -> Tensor:
    """Evaluate one of mmdet's match costs.

    The costs of DETRs are reimplemented here, equal to mmdet's up to
    rounding: mmdet's copy constants to the device in each call, which
    synchronizes, and evaluate classes that no target has. A cost of this
    package has a method ``batched_cost(inputs)``. Other costs are called as
    in mmdet.

    Args:
        match_cost (:obj:`BaseMatchCost`): The cost.
        inputs (CostInputs): Predictions and ground truth.

    Returns:
        Tensor: Cost, has shape (num_preds, num_gts).
    """
    function = _FUNCTIONS.get(type(match_cost))
    if function is not None:
        return function(match_cost, inputs)
    if isinstance(match_cost, BatchedCost):
        return match_cost.batched_cost(inputs)
    preds, gts = inputs.pixels()
    return match_cost(
        pred_instances=InstanceData(scores=inputs.scores, bboxes=preds),
        gt_instances=InstanceData(labels=inputs.labels, bboxes=gts),
        img_meta=inputs.img_meta,
    )


def _focal_cost(match_cost: FocalLossCost, inputs: CostInputs) -> Tensor:
    """Evaluate only the classes of targets, if these are fewer."""
    scores, labels = inputs.scores, inputs.labels
    if match_cost.binary_input or len(labels) >= scores.shape[1]:
        instances = InstanceData(scores=scores), InstanceData(labels=labels)
        return match_cost(*instances)
    columns = torch.arange(len(labels), device=labels.device)
    return match_cost(
        InstanceData(scores=scores[:, labels]), InstanceData(labels=columns)
    )


def _l1_cost(match_cost: BBoxL1Cost, inputs: CostInputs) -> Tensor:
    """L1 distance of normalized boxes, in the format of the cost."""
    if match_cost.box_format == 'xywh':
        preds, gts = inputs.boxes, inputs.gt_boxes
    else:
        preds, gts = inputs.corners()
    return torch.cdist(preds, gts, p=1) * match_cost.weight


def _iou_cost(match_cost: IoUCost, inputs: CostInputs) -> Tensor:
    """GIoU of boxes in pixels."""
    preds, gts = inputs.pixels()
    if match_cost.iou_mode != 'giou':
        instances = InstanceData(bboxes=preds), InstanceData(bboxes=gts)
        return match_cost(*instances)
    giou = generalized_box_iou(preds[:, None], gts[None], eps=1e-6)
    return -giou * match_cost.weight


_FUNCTIONS: dict[type, Callable[..., Tensor]] = {
    FocalLossCost: _focal_cost,
    BBoxL1Cost: _l1_cost,
    IoUCost: _iou_cost,
}
