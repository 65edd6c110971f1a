# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Callable, Sequence

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from project.utils.settings import IoU, PositiveCount, checked

from ..utils.gather import true_first
from ..utils.nms import nms_in_groups
from ..utils.precision import widened


@TASK_UTILS.register_module()
class LevelNMSSelector:
    """Selects proposals by score, after NMS on each feature level.

    Source: `NMS Strikes Back <https://arxiv.org/abs/2212.06137>`_, DETA's
    first stage. NMS runs on the best proposals of each level. Each level
    gets an equal share of the queries; queries that levels leave over go to
    the best remaining survivors. An image with fewer survivors than queries
    gets the best proposals without NMS.

    As in the source, a level with fewer points than ``max_per_level`` is
    filled up with points of other levels. These take part in NMS on their own
    level, where the second occurrence of a point is suppressed by the first.

    The host synchronizes with the device only in NMS, which handles all
    levels of several images at once, see :func:`nms_in_groups`.

    Args:
        max_per_level (int): Number of candidates of a level. Defaults to
            1000.
        iou_threshold (float): IoU with a better proposal above which one is
            suppressed. Defaults to 0.9.
    """

    @checked('model.proposal_selector')
    def __init__(
        self, max_per_level: PositiveCount = 1000, iou_threshold: IoU = 0.9
    ) -> None:
        self.max_per_level = max_per_level
        self.iou_threshold = iou_threshold

    @torch.no_grad()
    def select(
        self,
        scores: Tensor,
        boxes_of: Callable[[Tensor], Tensor],
        level_shapes: Sequence[tuple[int, int]],
        num_wanted: int,
    ) -> Tensor:
        """Select proposals.

        Args:
            scores (Tensor): Objectness, has shape (bs, num_feat_points).
            boxes_of (Callable): Maps indices of shape (bs, n) to the logits
                of their boxes (cx, cy, w, h), shape (bs, n, 4).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            num_wanted (int): Number of proposals, at most num_feat_points.

        Returns:
            Tensor: Indices, best first, has shape (bs, num_wanted).
        """
        scores = widened(scores)  # boxes_of computes as all else does
        best = scores.topk(num_wanted, dim=1).indices
        points, levels = self._candidates(scores, level_shapes)
        if points.shape[1] < num_wanted:
            return best
        survives = self._survivors(boxes_of(points), levels, len(level_shapes))
        marked = _share_among_levels(
            survives, levels, len(level_shapes), num_wanted
        )
        chosen = points.gather(1, true_first(marked, num_wanted))
        enough = survives.sum(1, keepdim=True) >= num_wanted
        return torch.where(enough, chosen, best)

    def _candidates(
        self, scores: Tensor, level_shapes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """The best points of each level.

        Points of other levels have score 0 and fill up small levels. Top-k
        decides the order of these ties, so the scores are computed as in the
        source.

        Returns:
            tuple[Tensor, Tensor]: Points and their levels, best first, each
            has shape (bs, num_candidates).
        """
        levels = _levels_of_points(level_shapes, scores.device)
        num_points = scores.shape[1]
        if torch.jit.is_tracing():  # to count operations: it is a tensor then
            num_points = int(num_points)
        count = torch.sym_min(self.max_per_level, num_points)
        probabilities = scores.sigmoid()
        points = torch.cat(
            [
                (probabilities * (levels == level)).topk(count, dim=1).indices
                for level in range(len(level_shapes))
            ],
            1,
        )
        found = scores.gather(1, points)
        if torch.compiler.is_exporting():  # ONNX has no stable sort
            order = found.topk(found.shape[1], dim=1).indices
        else:
            order = found.argsort(dim=1, descending=True, stable=True)
        points = points.gather(1, order)
        return points, levels[points]

    def _survivors(
        self, boxes_unact: Tensor, levels: Tensor, num_levels: int
    ) -> Tensor:
        """True for candidates that survive NMS, (bs, num_candidates)."""
        boxes = bbox_cxcywh_to_xyxy(widened(boxes_unact).sigmoid())
        boxes = boxes.float().clamp(0, 1)
        # Large levels first: the first groups lose no precision.
        return nms_in_groups(boxes, levels, num_levels, self.iou_threshold)


def _levels_of_points(
    level_shapes: Sequence[tuple[int, int]], device: torch.device
) -> Tensor:
    """Level of each point, has shape (num_feat_points, )."""
    return torch.cat(
        [
            torch.full((height * width,), level, device=device)
            for level, (height, width) in enumerate(level_shapes)
        ]
    )


def _share_among_levels(
    survives: Tensor, levels: Tensor, num_levels: int, num_wanted: int
) -> Tensor:
    """Select an equal share of each level, and the best of the rest.

    Args:
        survives (Tensor): True for survivors, best first, has shape
            (bs, num_candidates).
        levels (Tensor): Level of each candidate, has the same shape.
        num_levels (int): Number of levels.
        num_wanted (int): Number of candidates to select.

    Returns:
        Tensor: True for up to ``num_wanted`` survivors of each image; has
        the same shape.
    """
    every_level = torch.arange(num_levels, device=levels.device)
    of_level = survives[..., None] & (levels[..., None] == every_level)
    rank = of_level.cumsum(1).gather(2, levels[..., None])[..., 0]
    marked = survives & (rank <= num_wanted // num_levels)
    missing = num_wanted - marked.sum(1, keepdim=True)
    rest = survives & ~marked
    return marked | (rest & (rest.cumsum(1) <= missing))
