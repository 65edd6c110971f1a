# Copyright (c) mmdetr authors. All rights reserved.
from .align_detr import AlignDETR, HPRAlignDETR
from .anchor_detr import AnchorDETR
from .base_deformable_detr import BaseDeformableDETR
from .h_detr import HDETR
from .hpr_ddq_detr import HPRDDQDETR
from .hpr_detr import HPRDETR
from .rank_detr import RankDETR

__all__ = [
    'HDETR',
    'HPRDDQDETR',
    'HPRDETR',
    'AlignDETR',
    'AnchorDETR',
    'BaseDeformableDETR',
    'HPRAlignDETR',
    'RankDETR',
]
