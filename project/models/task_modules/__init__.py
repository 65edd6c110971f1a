# Copyright (c) mmdetr authors. All rights reserved.
from .high_order_iou_cost import HighOrderIoUCost
from .mixed_hungarian_assigner import MixedHungarianAssigner
from .normalized_giou_cost import NormalizedGIoUCost
from .probability_focal_cost import ProbabilityFocalCost
from .set_prediction import BatchHungarianAssigner

__all__ = [
    'BatchHungarianAssigner',
    'HighOrderIoUCost',
    'MixedHungarianAssigner',
    'NormalizedGIoUCost',
    'ProbabilityFocalCost',
]
