# Copyright (c) mmdetr authors. All rights reserved.
from .high_order_iou_cost import HighOrderIoUCost
from .mixed_hungarian_assigner import MixedHungarianAssigner
from .normalized_giou_cost import NormalizedGIoUCost
from .set_prediction import BatchHungarianAssigner

__all__ = [
    'BatchHungarianAssigner',
    'HighOrderIoUCost',
    'MixedHungarianAssigner',
    'NormalizedGIoUCost',
]
