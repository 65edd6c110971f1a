# Copyright (c) mmdetr authors. All rights reserved.
from .denoising_head import DenoisingHead
from .dn_detr_head import DNDETRHead
from .h_detr_head import HDETRHead
from .rank_detr_head import RankDETRHead
from .set_prediction_head import SetPredictionHead

__all__ = [
    'DNDETRHead',
    'DenoisingHead',
    'HDETRHead',
    'RankDETRHead',
    'SetPredictionHead',
]
