# Copyright (c) mmdetr authors. All rights reserved.
from .deta_head import DETAHead
from .h_detr_head import HDETRHead
from .rank_detr_head import RankDETRHead
from .set_prediction_head import SetPredictionHead

__all__ = ['DETAHead', 'HDETRHead', 'RankDETRHead', 'SetPredictionHead']
