# Copyright (c) mmdetr authors. All rights reserved.
from .anchor_detr import AnchorDETR
from .base_deformable_detr import BaseDeformableDETR
from .deta import DETA
from .h_detr import HDETR
from .rank_detr import RankDETR

__all__ = ['DETA', 'HDETR', 'AnchorDETR', 'BaseDeformableDETR', 'RankDETR']
