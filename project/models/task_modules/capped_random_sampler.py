# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.samplers import RandomSampler, SamplingResult
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class CappedRandomSampler(RandomSampler):
    """mmdet's random sampler with a mode that needs no host synchronization.

    If only the positives of a sample are used, sampling only keeps a random
    subset of them if they are too many. The random numbers are drawn on the
    device for all boxes, so the host need not know the number of positives.

    Args:
        num (int, optional): Size of a sample. Defaults to all boxes.
        pos_fraction (float): Largest fraction of positives in a sample.
            Defaults to 0.5.
        **kwargs: As in mmdet's ``RandomSampler``.
    """

    def __init__(
        self, num: int | None = None, pos_fraction: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(num, pos_fraction, **kwargs)

    def keep_positives(self, positive: Tensor) -> Tensor:
        """Keep a random subset of the positives if they are too many.

        Args:
            positive (Tensor): True for positives, has shape (num_boxes, ).

        Returns:
            Tensor: True for those that are kept, has shape (num_boxes, ).
        """
        num_boxes = len(positive)
        num = num_boxes if self.num is None else self.num
        limit = int(num * self.pos_fraction)
        if limit >= num_boxes:
            return positive
        keys = self.random_keys(num_boxes, positive.device)
        keys = keys.masked_fill(~positive, float('inf'))
        drawn = keys.topk(limit, largest=False).indices
        return positive & torch.zeros_like(positive).index_fill(0, drawn, True)

    def random_keys(self, num_boxes: int, device: torch.device) -> Tensor:
        """Draw the keys by which positives are kept, the smallest first.

        Args:
            num_boxes (int): Number of keys.
            device (torch.device): Device of the keys.

        Returns:
            Tensor: Finite, has shape (num_boxes, ).
        """
        return torch.rand(num_boxes, device=device)

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        *args: Any,
        **kwargs: Any,
    ) -> SamplingResult:
        """Sample positives and negatives, as used by mmdet's heads.

        Args:
            assign_result (:obj:`AssignResult`): Assignment of the boxes.
            pred_instances (:obj:`InstanceData`): ``priors`` of shape
                (num_boxes, 4).
            *args, **kwargs: As in mmdet's ``RandomSampler``.

        Returns:
            :obj:`SamplingResult`: The sample.
        """
        if self.num is not None:
            return super().sample(
                assign_result, pred_instances, *args, **kwargs
            )
        sampler = RandomSampler(
            num=len(pred_instances),
            pos_fraction=self.pos_fraction,
            neg_pos_ub=self.neg_pos_ub,
            add_gt_as_proposals=self.add_gt_as_proposals,
            rng=self.rng,
        )
        return sampler.sample(assign_result, pred_instances, *args, **kwargs)
