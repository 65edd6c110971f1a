# Copyright (c) mmdetr authors. All rights reserved.
from .anchor_detr_head import AnchorDETRHead
from .deta_head import DETAHead
from .h_detr_head import HDETRHead
from .rank_detr_head import RankDETRHead
from .set_prediction_head import SetPredictionHead

__all__ = [
    'AnchorDETRHead',
    'DETAHead',
    'HDETRHead',
    'RankDETRHead',
    'SetPredictionHead',
]
