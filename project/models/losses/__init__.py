# Copyright (c) mmdetr authors. All rights reserved.
from .align_loss import AlignLoss
from .giou_aware_focal_loss import GIoUAwareFocalLoss
from .normalized_giou_loss import NormalizedGIoULoss
from .set_criterion import SetCriterion
from .sparse_focal_loss import SparseFocalLoss

__all__ = [
    'AlignLoss',
    'GIoUAwareFocalLoss',
    'NormalizedGIoULoss',
    'SetCriterion',
    'SparseFocalLoss',
]
