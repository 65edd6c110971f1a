"""The head: says what is matched, and how it is scored."""

from typing import Any

from mmdet.registry import MODELS

from project.models.dense_heads import HDETRHead
from project.models.layers.stage_outputs import DecoderOutput
from project.models.task_modules.set_prediction import (
    HungarianMatching,
    Predictions,
    PredictionSet,
)


@MODELS.register_module()
class MyMethodHead(HDETRHead):
    """Head of :class:`MyMethod`.

    As an example, each object is matched to several queries in all decoder
    layers but the last, which detects.

    Args:
        num_copies (int): Queries of each object in those layers. Defaults to
            2.
        *args, **kwargs: As in :class:`HDETRHead`.
    """

    def __init__(self, *args: Any, num_copies: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_copies = num_copies

    def decoder_set(
        self, predictions: Predictions, decoder_output: DecoderOutput | None
    ) -> PredictionSet:
        """Match the queries that detect.

        Args:
            predictions (Predictions): Of these queries, in all layers.
            decoder_output (DecoderOutput, optional): What the decoder gave.
        """
        copies = [self.num_copies] * (predictions.num_layers - 1) + [1]
        return PredictionSet(
            predictions, HungarianMatching(self.assigner, copies)
        )
