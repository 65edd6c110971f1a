# Copyright (c) mmdetr authors. All rights reserved.
from .base_deformable_detr import BaseDeformableDETR
from .h_detr import HDETR
from .rank_detr import RankDETR

__all__ = ['HDETR', 'BaseDeformableDETR', 'RankDETR']
