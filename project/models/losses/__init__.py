# Copyright (c) mmdetr authors. All rights reserved.
from .normalized_giou_loss import NormalizedGIoULoss
from .set_criterion import SetCriterion
from .sparse_focal_loss import SparseFocalLoss

__all__ = ['NormalizedGIoULoss', 'SetCriterion', 'SparseFocalLoss']
