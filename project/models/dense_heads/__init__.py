# Copyright (c) mmdetr authors. All rights reserved.
from .align_detr_head import AlignDETRHead, HPRAlignDETRHead
from .anchor_detr_head import AnchorDETRHead
from .denoising_head import DenoisingHead
from .deta_head import DETAHead
from .dn_detr_head import DNDETRHead
from .h_detr_head import HDETRHead
from .hpr_ddq_detr_head import HPRDDQDETRHead
from .hpr_detr_head import HPRDETRHead
from .rank_detr_head import RankDETRHead
from .set_prediction_head import SetPredictionHead

__all__ = [
    'AlignDETRHead',
    'AnchorDETRHead',
    'DETAHead',
    'DNDETRHead',
    'DenoisingHead',
    'HDETRHead',
    'HPRAlignDETRHead',
    'HPRDDQDETRHead',
    'HPRDETRHead',
    'RankDETRHead',
    'SetPredictionHead',
]
