# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmdet.registry import MODELS

from project.utils.errors import UserError

from ..layers.denoising_queries import DenoisingQueries
from ..layers.stage_outputs import DecoderOutput, FirstStageOutput
from ..task_modules.set_prediction import (
    HungarianMatching,
    Predictions,
    PredictionSet,
    Scoring,
)
from .hpr_detr_head import HPRDETRHead


@MODELS.register_module()
class AlignDETRHead(HPRDETRHead):
    """Head of `Align-DETR <https://arxiv.org/abs/2304.07527>`_.

    DINO's head in which a target is matched to several queries of each layer
    (section 3.3) and the classification target is the quality of a query
    (section 3.2), see :class:`AlignLoss`. All losses are divided by the mean
    number of targets over all ranks. Settings are those of mmdet's
    ``projects/AlignDETR``.

    Args:
        *args: As in :class:`HPRDETRHead`.
        all_layers_num_gt_repeat (Sequence[int]): Queries matched to each
            target in each decoder layer and, last, in the first stage.
        alpha (float): Weight of the probability against the IoU in the
            classification target. Defaults to 0.25.
        gamma (float): Focusing parameter of the background. Defaults to 2.
        tau (float): Temperature of the weights of a target's queries.
            Defaults to 1.5.
        loss_cls (dict, optional): ``CrossEntropyLoss`` with sigmoid, of which
            only ``loss_weight`` is used.
        **kwargs: As in :class:`HPRDETRHead`.

    Raises:
        UserError: If ``all_layers_num_gt_repeat`` has another length, or
            ``loss_cls`` is another loss.
    """

    def __init__(
        self,
        *args: Any,
        all_layers_num_gt_repeat: Sequence[int] = (2, 2, 2, 2, 2, 1, 2),
        alpha: float = 0.25,
        gamma: float = 2.0,
        tau: float = 1.5,
        loss_cls: dict | None = None,
        **kwargs: Any,
    ) -> None:
        loss_cls = loss_cls or dict(type='CrossEntropyLoss', use_sigmoid=True)
        if loss_cls['type'] != 'CrossEntropyLoss' or not loss_cls.get(
            'use_sigmoid'
        ):
            raise UserError(
                f'model.bbox_head.loss_cls.type={loss_cls["type"]!r} should '
                "be 'CrossEntropyLoss' with use_sigmoid=True"
            )
        self.num_gt_repeat = list(all_layers_num_gt_repeat)
        loss_cls = dict(
            type='AlignLoss',
            alpha=alpha,
            gamma=gamma,
            tau=tau,
            loss_weight=loss_cls.get('loss_weight', 1.0),
        )
        super().__init__(*args, loss_cls=loss_cls, **kwargs)
        if len(self.num_gt_repeat) != self.num_pred_layer:
            raise UserError(
                'model.bbox_head.all_layers_num_gt_repeat='
                f'{self.num_gt_repeat} should have {self.num_pred_layer} '
                'numbers, one for each decoder layer and one for the encoder'
            )

    def decoder_set(
        self, predictions: Predictions, decoder_output: DecoderOutput | None
    ) -> PredictionSet:
        """Match each target to several queries of each decoder layer."""
        return PredictionSet(
            predictions,
            HungarianMatching(self.assigner, self.num_gt_repeat[:-1]),
            Scoring(normalizer='objects'),
        )

    def first_stage_sets(
        self, predictions: Predictions, first_stage: FirstStageOutput | None
    ) -> list[PredictionSet]:
        """Match each target to several proposals."""
        pairing = HungarianMatching(self.assigner, self.num_gt_repeat[-1])
        scoring = Scoring(loss_cls=self.enc_loss_cls, normalizer='objects')
        return [PredictionSet(predictions, pairing, scoring)]

    def denoising_scoring(self, denoising: DenoisingQueries) -> Scoring:
        """Score denoising queries without weights by rank."""
        scoring = super().denoising_scoring(denoising)
        return replace(scoring, loss_cls=self.loss_cls.without_ranks())


@MODELS.register_module()
class HPRAlignDETRHead(AlignDETRHead):
    """:class:`AlignDETRHead` under the name in the configs of HPR."""
