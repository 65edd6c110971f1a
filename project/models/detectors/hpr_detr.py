# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS

from ..layers.transformer.proposal_refiner import ROI_EXTRACTOR
from .base_dino import BaseDINO


@MODELS.register_module()
class HPRDETR(BaseDINO):
    """DINO, or without denoising Deformable DETR, with HPR's refiners.

    Source: HPR, "Hybrid Proposal Refiner: Revisiting DETR Series from the
    Faster R-CNN Perspective" (CVPR 2024). The decoder's layers are
    :class:`ProposalRefinerLayer`; each auxiliary refiner has its own head
    and losses.

    Args:
        *args: As in :class:`BaseDINO`.
        decoder (dict): Settings of the decoder. ``bbox_roi_extractor``
            defaults to :data:`ROI_EXTRACTOR`.
        use_dn (bool): Whether to train with denoising. Defaults to False.
        use_lsj (bool): Ignored, as in the authors' code; their configs set
            it. Defaults to False.
        **kwargs: As in :class:`BaseDINO`.
    """

    auxiliary_prefix = 'hpr_{}_'

    def __init__(
        self,
        *args: Any,
        decoder: dict,
        use_dn: bool = False,
        use_lsj: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            decoder={'bbox_roi_extractor': ROI_EXTRACTOR, **decoder},
            use_dn=use_dn,
            **kwargs,
        )
