# Copyright (c) mmdetr authors. All rights reserved.
from .normalized_giou_cost import NormalizedGIoUCost
from .set_prediction import BatchHungarianAssigner

__all__ = ['BatchHungarianAssigner', 'NormalizedGIoUCost']
