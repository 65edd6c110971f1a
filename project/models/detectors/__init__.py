# Copyright (c) mmdetr authors. All rights reserved.
from .align_detr import AlignDETR, HPRAlignDETR
from .anchor_detr import AnchorDETR
from .base_deformable_detr import BaseDeformableDETR
from .deta import DETA
from .dn_deformable_detr import DNDeformableDETR
from .dn_deformable_encoder_detr import DNDeformableEncoderDETR
from .dn_detr import DNDETR
from .h_detr import HDETR
from .hpr_ddq_detr import HPRDDQDETR
from .hpr_detr import HPRDETR
from .rank_detr import RankDETR

__all__ = [
    'DETA',
    'DNDETR',
    'HDETR',
    'HPRDDQDETR',
    'HPRDETR',
    'AlignDETR',
    'AnchorDETR',
    'BaseDeformableDETR',
    'DNDeformableDETR',
    'DNDeformableEncoderDETR',
    'HPRAlignDETR',
    'RankDETR',
]
