# Copyright (c) mmdetr authors. All rights reserved.
from .anchor_detr import AnchorDETR
from .base_deformable_detr import BaseDeformableDETR
from .deta import DETA
from .dn_deformable_detr import DNDeformableDETR
from .dn_deformable_encoder_detr import DNDeformableEncoderDETR
from .dn_detr import DNDETR
from .h_detr import HDETR
from .rank_detr import RankDETR

__all__ = [
    'DETA',
    'DNDETR',
    'HDETR',
    'AnchorDETR',
    'BaseDeformableDETR',
    'DNDeformableDETR',
    'DNDeformableEncoderDETR',
    'RankDETR',
]
