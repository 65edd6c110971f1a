# Copyright (c) mmdetr authors. All rights reserved.
from .giou_aware_focal_loss import GIoUAwareFocalLoss
from .normalized_giou_loss import NormalizedGIoULoss
from .set_criterion import SetCriterion
from .sparse_focal_loss import SparseFocalLoss

__all__ = [
    'GIoUAwareFocalLoss',
    'NormalizedGIoULoss',
    'SetCriterion',
    'SparseFocalLoss',
]
