# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence

from mmdet.registry import TASK_UTILS

from .set_prediction import BatchHungarianAssigner


@TASK_UTILS.register_module()
class MixedHungarianAssigner(BatchHungarianAssigner):
    """Hungarian matching of each target to several queries, if there are.

    Source: `Align-DETR <https://arxiv.org/abs/2304.07527>`_, section 3.3
    (mixed matching). The pairing says to how many in each layer; where an
    image has too few queries for this, its targets get fewer, one at least.

    Args:
        *args, **kwargs: As in :class:`BatchHungarianAssigner`.
    """

    def num_copies(
        self, copies: Sequence[int], num_queries: int, num_gts: int
    ) -> list[int]:
        """As often as it is to be, but as the queries allow."""
        share = max(num_queries // num_gts, 1)
        return [min(number, share) for number in copies]
