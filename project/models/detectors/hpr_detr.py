# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS

from ..layers.transformer.proposal_refiner import ROI_EXTRACTOR
from .base_dino import BaseDINO


@MODELS.register_module()
class HPRDETR(BaseDINO):
    """DINO with HPR's three refiners; Deformable DETR without denoising.

    Source: HPR, "Hybrid Proposal Refiner: Revisiting DETR Series from the
    Faster R-CNN Perspective" (CVPR 2024). The refiners are the decoder's
    layers, :class:`ProposalRefinerLayer`; each of the auxiliary ones has a
    head and losses of its own.

    Args:
        *args: As in :class:`BaseDINO`.
        decoder (dict): Settings of the decoder, whose
            ``bbox_roi_extractor`` defaults to :data:`ROI_EXTRACTOR`.
        use_dn (bool): Whether there are denoising queries. Defaults to False.
        use_lsj (bool): Of the authors' configs, which never had an effect.
            Defaults to False.
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
