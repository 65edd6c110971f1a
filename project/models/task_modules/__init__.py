# Copyright (c) mmdetr authors. All rights reserved.
from .high_order_iou_cost import HighOrderIoUCost
from .normalized_giou_cost import NormalizedGIoUCost
from .set_prediction import BatchHungarianAssigner

__all__ = ['BatchHungarianAssigner', 'HighOrderIoUCost', 'NormalizedGIoUCost']
