# Copyright (c) mmdetr authors. All rights reserved.
from .capped_random_sampler import CappedRandomSampler
from .high_order_iou_cost import HighOrderIoUCost
from .level_nms_selector import LevelNMSSelector
from .mixed_hungarian_assigner import MixedHungarianAssigner
from .normalized_giou_cost import NormalizedGIoUCost
from .probability_focal_cost import ProbabilityFocalCost
from .set_prediction import BatchHungarianAssigner
from .top_k_iou_assigner import TopKIoUAssigner

__all__ = [
    'BatchHungarianAssigner',
    'CappedRandomSampler',
    'HighOrderIoUCost',
    'LevelNMSSelector',
    'MixedHungarianAssigner',
    'NormalizedGIoUCost',
    'ProbabilityFocalCost',
    'TopKIoUAssigner',
]
