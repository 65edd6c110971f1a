# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS

from ..layers.transformer import proposal_refiner  # noqa: F401, registers it
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
        use_lsj (bool): Of the authors' configs, which never had an effect.
            Defaults to False.
        **kwargs: As in :class:`BaseDINO`.
    """

    auxiliary_prefix = 'hpr_{}_'

    def __init__(
        self, *args: Any, use_lsj: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
