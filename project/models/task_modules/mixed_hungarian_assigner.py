# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence

from mmdet.registry import TASK_UTILS

from .set_prediction import BatchHungarianAssigner


@TASK_UTILS.register_module()
class MixedHungarianAssigner(BatchHungarianAssigner):
    """Hungarian matching of each target to several queries.

    Source: `Align-DETR <https://arxiv.org/abs/2304.07527>`_, section 3.3
    (mixed matching). The pairing gives their number for each layer; with too
    few queries for this, all targets get fewer, at least one.

    Args:
        *args, **kwargs: As in :class:`BatchHungarianAssigner`.
    """

    def num_copies(
        self, copies: Sequence[int], num_queries: int, num_gts: int
    ) -> list[int]:
        """Copies in each layer, limited by the number of queries."""
        share = max(num_queries // num_gts, 1)
        return [min(number, share) for number in copies]
