# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import replace
from typing import Any

from mmdet.registry import MODELS

from ..layers.denoising_queries import DenoisingQueries
from ..task_modules.set_prediction import Scoring
from .denoising_head import DenoisingHead


@MODELS.register_module()
class HPRDETRHead(DenoisingHead):
    """DINO's head, for HPR's refiners.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_; losses and their
    names are those of mmdet's ``DINOHead``. The first stage is trained at
    the selected points and predicts classes. All losses are divided by the
    mean number of matched pairs over all ranks. Fillers among the denoising
    queries are trained as background.

    Args:
        *args: As in :class:`SetPredictionHead`.
        train_cfg (dict, optional): ``assigner`` may be mmdet's
            ``HungarianAssigner``, which is replaced by
            ``BatchHungarianAssigner``.
        **kwargs: As in :class:`SetPredictionHead`.
    """

    first_stage_is_class_agnostic = False

    def __init__(
        self, *args: Any, train_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        if train_cfg and train_cfg['assigner']['type'] == 'HungarianAssigner':
            assigner = {
                **train_cfg['assigner'],
                'type': 'BatchHungarianAssigner',
            }
            train_cfg = {**train_cfg, 'assigner': assigner}
        super().__init__(
            *args,
            train_cfg=train_cfg,
            normalizer='pairs',
            dn_loss_on_fillers=True,
            **kwargs,
        )

    def denoising_scoring(self, denoising: DenoisingQueries) -> Scoring:
        """How the denoising queries are scored: averaged over all ranks."""
        scoring = super().denoising_scoring(denoising)
        return replace(scoring, sync_normalizer=True)
