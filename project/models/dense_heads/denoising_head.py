# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ..layers.denoising_queries import DenoisingQueries
from ..layers.stage_outputs import DecoderOutput
from ..task_modules.set_prediction import (
    GivenPairs,
    MatchedPairs,
    Predictions,
    PredictionSet,
    Scoring,
)
from .set_prediction_head import SetPredictionHead


@MODELS.register_module()
class DenoisingHead(SetPredictionHead):
    """Head that is also trained to reconstruct noised ground truths.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, section 4.
    Denoising queries come first. Each is trained on its own ground truth,
    without matching, with the losses of the matched queries
    (``dn_loss_cls``, ...).

    There are two published forms of the loss. The authors average over the
    real queries of the rank. In detrex, fillers are trained as background,
    and the divisor is the mean number of targets over all ranks, at least 1,
    times the number of groups.

    Args:
        dn_loss_on_fillers (bool): Whether fillers count as background in the
            classification loss. Defaults to False.
        sync_dn_avg_factor (bool): Whether the denoising losses are divided
            by the mean over all ranks. Defaults to False.
        *args, **kwargs: As in :class:`SetPredictionHead`.
    """

    def __init__(
        self,
        *args: Any,
        dn_loss_on_fillers: bool = False,
        sync_dn_avg_factor: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.dn_loss_on_fillers = dn_loss_on_fillers
        self.sync_dn_avg_factor = sync_dn_avg_factor

    def prediction_sets(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        decoder_output: DecoderOutput | None = None,
        denoising: DenoisingQueries | None = None,
    ) -> list[PredictionSet]:
        """Match the matched queries; pair denoising ones with their targets.

        Arguments and results are those of :class:`SetPredictionHead`, with
        the denoising queries in training.
        """
        if denoising is None:
            return super().prediction_sets(
                cls_scores, bbox_preds, decoder_output
            )
        end = denoising.num_queries
        sets = super().prediction_sets(
            cls_scores[:, :, end:], bbox_preds[:, :, end:], decoder_output
        )
        noised_scores = cls_scores[:, :, :end]
        if not self.dn_loss_on_fillers:
            # Probability 0 of all classes: no loss, no gradient.
            noised_scores = noised_scores.masked_fill(
                denoising.is_filler[..., None], -torch.inf
            )
        noised = PredictionSet(
            Predictions(noised_scores, bbox_preds[:, :, :end], prefix='dn_'),
            _own_pairs(denoising, len(cls_scores)),
            self.denoising_scoring(denoising),
        )
        return [*sets, noised]

    def denoising_scoring(self, denoising: DenoisingQueries) -> Scoring:
        """How the denoising queries are scored, in either form."""
        if self.sync_dn_avg_factor:
            share = 1 / max(denoising.num_groups, 1)
            return Scoring(normalizer='targets', loss_weight=share)
        return Scoring(normalizer='pairs', sync_normalizer=False)


def _own_pairs(denoising: DenoisingQueries, num_layers: int) -> GivenPairs:
    """Pair each denoising query with its ground truth, in each layer."""
    num_pairs = len(denoising.target)
    layer = torch.arange(num_layers, device=denoising.target.device)
    pairs = MatchedPairs(
        layer.repeat_interleave(num_pairs),
        denoising.image.repeat(num_layers),
        denoising.place.repeat(num_layers),
        denoising.target.repeat(num_layers),
        [num_pairs] * num_layers,
    )
    return GivenPairs(pairs)
