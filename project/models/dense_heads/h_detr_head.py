# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor

from ..layers.stage_outputs import DecoderOutput
from ..task_modules.set_prediction import (
    HungarianMatching,
    Predictions,
    PredictionSet,
    Scoring,
)
from .set_prediction_head import SetPredictionHead


@MODELS.register_module()
class HDETRHead(SetPredictionHead):
    """Head of `H-Deformable-DETR <https://arxiv.org/abs/2207.13080>`_.

    Both query groups share the branches. The one-to-many group is matched
    against repeated ground truths, and its losses (``one2many_loss_cls``,
    ...) are weighted by lambda.

    Args:
        one2many (dict, optional): ``num_copies`` of each ground truth (K in
            the paper) and ``loss_weight`` (lambda). Set by the detector.
        *args, **kwargs: As in :class:`SetPredictionHead`.
    """

    def __init__(
        self, *args: Any, one2many: dict | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.one2many = one2many or {}

    def prediction_sets(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        decoder_output: DecoderOutput | None = None,
    ) -> list[PredictionSet]:
        """Match the first group one-to-one and the second one-to-many.

        Arguments and results are those of :class:`SetPredictionHead`.
        """
        groups = decoder_output.query_groups if decoder_output else None
        if groups is None or 'one2many' not in groups:
            return super().prediction_sets(
                cls_scores, bbox_preds, decoder_output
            )
        one2one, one2many = (groups[name] for name in ('one2one', 'one2many'))
        sets = super().prediction_sets(
            cls_scores[:, :, one2one],
            bbox_preds[:, :, one2one],
            decoder_output,
        )
        second_group = PredictionSet(
            Predictions(
                cls_scores[:, :, one2many],
                bbox_preds[:, :, one2many],
                prefix='one2many_',
            ),
            HungarianMatching(
                self.assigner, self.one2many.get('num_copies', 1)
            ),
            Scoring(loss_weight=self.one2many.get('loss_weight', 1.0)),
        )
        return [*sets, second_group]
