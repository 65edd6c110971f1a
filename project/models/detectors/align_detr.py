# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import MODELS

from .base_dino import BaseDINO
from .hpr_detr import HPRDETR


@MODELS.register_module()
class AlignDETR(BaseDINO):
    """DINO whose head aligns classification with localization.

    Source: `Align-DETR <https://arxiv.org/abs/2304.07527>`_. The method is in
    ``AlignDETRHead`` and ``MixedHungarianAssigner``.
    """


@MODELS.register_module()
class HPRAlignDETR(HPRDETR):
    """Align-DETR with HPR's three refiners, see :class:`HPRDETR`."""
