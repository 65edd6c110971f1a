# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import TASK_UTILS

from .set_prediction import BatchHungarianAssigner, PredictionSet


@TASK_UTILS.register_module()
class MixedHungarianAssigner(BatchHungarianAssigner):
    """Hungarian matching of each target to several queries, if there are.

    Source: `Align-DETR <https://arxiv.org/abs/2304.07527>`_, section 3.3
    (mixed matching). The set of predictions says to how many in each layer;
    where an image has too few queries for this, its targets get fewer, one
    at least.

    Args:
        *args, **kwargs: As in :class:`BatchHungarianAssigner`.
    """

    def num_copies(
        self, predictions: PredictionSet, num_gts: int
    ) -> list[int]:
        """How often each target is matched in each layer.

        Args:
            predictions (PredictionSet): Predictions.
            num_gts (int): Targets of the image, at least one.

        Returns:
            list[int]: As the set has it, but as the queries allow.
        """
        share = max(predictions.num_queries // num_gts, 1)
        return [min(copies, share) for copies in predictions.copies]
