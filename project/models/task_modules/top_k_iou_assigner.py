# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from project.utils.errors import UserError
from project.utils.settings import IoU, NonNegative, PositiveCount, checked

from ..utils.box_ops import box_iou
from ..utils.precision import full_precision
from .set_prediction import SetTargets
from .set_prediction.protocols import PositiveSampler


@TASK_UTILS.register_module()
class TopKIoUAssigner(BaseAssigner):
    """Assigns to each ground truth the prior boxes with the largest IoU.

    Source: `NMS Strikes Back <https://arxiv.org/abs/2212.06137>`_, section 3
    (DETA), following the authors' code. The boxes are anchors or inputs of
    the decoder, not its predictions.

    1. A box is positive for the ground truth of its largest IoU if this IoU
       is at least ``pos_iou_thr``, or if no other box has a larger IoU with
       some ground truth.
    2. If there are too many positives, a random subset is kept.
    3. A ground truth with c positives is paired with the min(c, k) boxes of
       the largest IoU with it.

    In step 3 all boxes are candidates, whichever ground truth they are
    positive for. So a box can be paired with two ground truths, and a ground
    truth whose best box is positive for another one may get no box. The
    authors acknowledge this as an oversight and published their results with
    it; ``one_gt_per_box`` fixes it.

    All other boxes are negatives: no range of IoU is ignored.

    Args:
        pos_iou_thr (float): Lowest IoU of positives.
        num_per_gt (int): Largest number of boxes of a ground truth, k.
            Defaults to 4.
        sampler (dict, optional): Config of the sampler of positives,
            ``CappedRandomSampler``. By default all are kept.
        one_gt_per_box (bool): Whether step 3 uses only positives of the
            ground truth itself. Defaults to False.
        iou_eps (float): Added to the union, in the boxes' unit of area, as in
            detrex (1e-6). Defaults to 0.

    Raises:
        UserError: If the sampler does not sample positives.
    """

    @checked('TopKIoUAssigner')
    def __init__(
        self,
        pos_iou_thr: IoU,
        num_per_gt: PositiveCount = 4,
        sampler: dict | None = None,
        one_gt_per_box: bool = False,
        iou_eps: NonNegative = 0.0,
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.num_per_gt = num_per_gt
        self.sampler = None if sampler is None else TASK_UTILS.build(sampler)
        if sampler and not isinstance(self.sampler, PositiveSampler):
            raise UserError(
                f'TopKIoUAssigner: sampler.type={sampler["type"]!r} cannot '
                "keep some of the positives; use 'CappedRandomSampler'"
            )
        self.one_gt_per_box = one_gt_per_box
        self.iou_eps = iou_eps

    @torch.no_grad()
    @full_precision
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign the boxes of one image, for mmdet's heads.

        A box with several ground truths is assigned to the last of them,
        since an ``AssignResult`` holds one.

        Args:
            pred_instances (:obj:`InstanceData`): ``priors``, boxes
                (x1, y1, x2, y2) in any unit, has shape (num_boxes, 4).
            gt_instances (:obj:`InstanceData`): ``bboxes`` in the same unit,
                has shape (num_gts, 4), and ``labels``, has shape
                (num_gts, ).
            gt_instances_ignore (:obj:`InstanceData`, optional): Unused.

        Returns:
            :obj:`AssignResult`: For each box 0, or 1 + the index of its
            ground truth.
        """
        priors, gts = pred_instances.priors, gt_instances.bboxes
        labels = gt_instances.labels
        gt_inds = labels.new_zeros(len(priors))
        assigned_labels = torch.full_like(gt_inds, -1)
        overlaps = priors.new_zeros(len(priors))
        if len(gts) and len(priors):
            iou = self._iou(gts, priors)
            boxes, used = self._choose(iou)
            numbers = torch.arange(1, len(gts) + 1, device=used.device)
            gt_inds.scatter_reduce_(
                0, boxes.flatten(), (numbers[:, None] * used).flatten(), 'amax'
            )
            overlaps = iou.amax(0)
            assigned_labels = torch.where(
                gt_inds > 0, labels[gt_inds - 1], assigned_labels
            )
        return AssignResult(len(gts), gt_inds, overlaps, assigned_labels)

    @torch.no_grad()
    @full_precision
    def choose(self, priors: Tensor, targets: SetTargets) -> Tensor:
        """Select the boxes of each ground truth, by decreasing IoU.

        Arguments and results are those of :class:`PriorAssigner`.
        """
        corners = bbox_cxcywh_to_xyxy(priors)
        gts = bbox_cxcywh_to_xyxy(targets.bboxes_normalized)
        chosen = [
            self._choose(
                self._iou(gts[targets.of_image(image)], corners[image])
            )
            for image in range(len(priors))
        ]
        boxes, used = (torch.cat(part) for part in zip(*chosen, strict=True))
        return boxes.masked_fill(~used, -1)

    def _iou(self, gts: Tensor, boxes: Tensor) -> Tensor:
        """IoU matrix, (num_gts, num_boxes); 0 if both have no area."""
        iou = box_iou(gts[:, None], boxes[None], eps=self.iou_eps)
        return iou.nan_to_num(nan=0)

    def _choose(self, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Select the boxes of each ground truth of an image.

        Args:
            iou (Tensor): Has shape (num_gts, num_boxes).

        Returns:
            tuple[Tensor, Tensor]: The boxes with the largest IoU, and whether
            they are paired; each has shape (num_gts, min(k, num_boxes)).
        """
        num_gts, num_boxes = iou.shape
        count = min(self.num_per_gt, num_boxes)
        if not iou.numel():
            shape = (num_gts, count)
            return (
                torch.zeros(shape, dtype=torch.long, device=iou.device),
                torch.zeros(shape, dtype=torch.bool, device=iou.device),
            )
        best, owner = iou.max(0)
        positive = (best >= self.pos_iou_thr) | (
            iou == iou.amax(1, keepdim=True)
        ).any(0)
        if self.sampler is not None:
            positive = self.sampler.keep_positives(positive)
        num_positives = owner.new_zeros(num_gts)
        num_positives.scatter_add_(0, owner, positive.long())
        if self.one_gt_per_box:
            gts = torch.arange(num_gts, device=iou.device)
            own = positive & (owner == gts[:, None])
            iou = iou.masked_fill(~own, -1)
        boxes = iou.topk(count, dim=1).indices
        ranks = torch.arange(count, device=iou.device)
        return boxes, ranks < num_positives[:, None]
