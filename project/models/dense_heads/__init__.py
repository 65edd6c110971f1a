# Copyright (c) mmdetr authors. All rights reserved.
from .anchor_detr_head import AnchorDETRHead
from .denoising_head import DenoisingHead
from .deta_head import DETAHead
from .dn_detr_head import DNDETRHead
from .h_detr_head import HDETRHead
from .rank_detr_head import RankDETRHead
from .set_prediction_head import SetPredictionHead

__all__ = [
    'AnchorDETRHead',
    'DETAHead',
    'DNDETRHead',
    'DenoisingHead',
    'HDETRHead',
    'RankDETRHead',
    'SetPredictionHead',
]
