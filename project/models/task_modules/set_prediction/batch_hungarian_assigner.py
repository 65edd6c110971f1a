# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any

import torch
from mmdet.models.task_modules import AssignResult, HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor

from project.utils.settings import Range, check_weight, checked

from ...utils.broken_matches import matchable
from ...utils.precision import full_precision
from .hungarian_assignment import CostBlock, PendingAssignment
from .pairwise_cost import pairwise_cost
from .structures import CostInputs, Predictions, SetTargets


@TASK_UTILS.register_module()
class BatchHungarianAssigner(HungarianAssigner):
    """Hungarian matching of all layers, query groups and images at once.

    Takes mmdet's ``match_costs`` and finds the same assignments as mmdet's
    ``HungarianAssigner`` for each layer and image (DETR, section 3.1). A cost
    is computed once for all layers, over the ground truths of the same image
    and without copies; :class:`PendingMatch` copies all costs of a training
    step to the host together.

    Args:
        match_costs (list[dict] | dict): Configs of mmdet's match costs.
        late_match_costs (list[dict] | dict, optional): Costs that replace
            them late in the training (Rank-DETR, section 3.3). By default
            none do.
        late_begin (float): Fraction of the training's iterations after which
            they do, in [0, 1]. Defaults to 0.75.

    Raises:
        UserError: If the weight of a cost is negative.
    """

    @checked('train_cfg.assigner')
    def __init__(
        self,
        match_costs: list[dict] | dict,
        late_match_costs: list[dict] | dict | None = None,
        late_begin: Annotated[
            float, Range(0, 1, meaning="a share of the training's iterations")
        ] = 0.75,
    ) -> None:
        super().__init__(match_costs)
        for index, cost in enumerate(self.match_costs):
            check_weight(f'train_cfg.assigner.match_costs[{index}]', cost)
        self.late_match_costs = None
        self.late_begin = late_begin
        if late_match_costs is not None:
            self.late_match_costs = HungarianAssigner(
                late_match_costs
            ).match_costs
            for index, cost in enumerate(self.late_match_costs):
                name = f'train_cfg.assigner.late_match_costs[{index}]'
                check_weight(name, cost)

    def current_costs(self) -> list[BaseMatchCost]:
        """The costs at the current iteration.

        mmengine's Runner records the iteration in its message hub, also after
        ``--resume``; without a Runner it is 0.
        """
        if self.late_match_costs is None:
            return self.match_costs
        hub = MessageHub.get_current_instance()
        iteration, total = hub.get_info('iter', 0), hub.get_info('max_iters')
        # The quotient is exactly 0.75 at three quarters.
        is_late = total and iteration / total >= self.late_begin
        return self.late_match_costs if is_late else self.match_costs

    @full_precision
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict,
        **kwargs: Any,
    ) -> AssignResult:
        """Match the predictions of one layer in one image.

        Args:
            pred_instances (:obj:`InstanceData`): ``bboxes`` in pixels
                (x1, y1, x2, y2), has shape (num_queries, 4), and logits
                ``scores``, has shape (num_queries, num_classes).
            gt_instances (:obj:`InstanceData`): ``bboxes`` in pixels, has
                shape (num_gts, 4), and ``labels``, has shape (num_gts, ).
            img_meta (dict): Meta information of the image.

        Returns:
            :obj:`AssignResult`: For each query 0, or 1 + the index of its
            target.
        """
        num_gts, num_queries = len(gt_instances), len(pred_instances)
        labels = gt_instances.labels
        gt_inds = labels.new_zeros(num_queries)
        assigned_labels = labels.new_full((num_queries,), -1)
        targets = SetTargets.from_instances(
            [gt_instances],
            [img_meta],
            like=pred_instances.bboxes,
            num_classes=pred_instances.scores.shape[1],
        )
        boxes = pred_instances.bboxes / targets.image_sizes
        predictions = Predictions(
            pred_instances.scores[None, None],
            bbox_xyxy_to_cxcywh(boxes)[None, None],
        )
        pending = self.start(predictions, targets, [1])
        tensors = [tensor.cpu().numpy() for tensor in pending.tensors]
        rows = torch.from_numpy(pending.solve(tensors)).to(gt_inds.device)
        _, _, query, target = rows
        gt_inds[query] = target + 1
        assigned_labels[query] = labels[target]
        return AssignResult(
            num_gts, gt_inds, max_overlaps=None, labels=assigned_labels
        )

    @torch.no_grad()
    @full_precision
    def start(
        self,
        predictions: Predictions,
        targets: SetTargets,
        copies: Sequence[int],
    ) -> PendingAssignment:
        """Compute the costs, without synchronization.

        Args:
            predictions (Predictions): Predictions.
            targets (SetTargets): Ground truth.
            copies (Sequence[int]): Copies of each target in each layer.

        Returns:
            PendingAssignment: The costs, to be solved on the host.
        """
        if not predictions.num_queries:
            return PendingAssignment([])
        blocks = [
            CostBlock(
                image,
                targets.offsets[image],
                self.num_copies(copies, predictions.num_queries, num_gts),
                self._cost(predictions, targets, image),
                has_out=predictions.valid is not None,
            ).pruned()
            for image, num_gts in enumerate(targets.counts)
            if num_gts
        ]
        return PendingAssignment(blocks)

    def num_copies(
        self, copies: Sequence[int], num_queries: int, num_gts: int
    ) -> list[int]:
        """Copies of each target of an image in each layer.

        Args:
            copies (Sequence[int]): Wanted copies in each layer.
            num_queries (int): Number of queries of the image.
            num_gts (int): Number of its targets, at least one.

        Returns:
            list[int]: By default the wanted copies, of which some are left
            unmatched if there are too few queries.
        """
        return list(copies)

    def _cost(
        self, predictions: Predictions, targets: SetTargets, image: int
    ) -> Tensor:
        """Costs of an image: (num_layers, num_gts, num_queries)."""
        of_image = targets.of_image(image)
        scores = predictions.cls_scores[:, image]
        labels = targets.labels[of_image]
        if predictions.class_agnostic:
            scores, labels = scores[..., :1], torch.zeros_like(labels)
        dtype = targets.bboxes_normalized.dtype
        inputs = CostInputs(
            prefix=predictions.prefix,
            num_layers=predictions.num_layers,
            scores=scores.flatten(0, 1).to(dtype),
            boxes=predictions.bbox_preds[:, image].flatten(0, 1).to(dtype),
            labels=labels,
            gt_boxes=targets.bboxes_normalized[of_image],
            image_size=targets.image_sizes[image],
            img_meta=targets.img_metas[image],
        )
        costs = (pairwise_cost(c, inputs) for c in self.current_costs())
        cost = reduce(torch.add, costs)
        cost = matchable(cost.unflatten(0, (predictions.num_layers, -1)).mT)
        if predictions.valid is not None:
            is_out = ~predictions.valid[:, image, None]
            cost = cost.masked_fill(is_out, torch.inf)
        return cost
