# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor

from ..layers.stage_outputs import DecoderOutput
from .set_prediction_head import SetPredictionHead


@MODELS.register_module()
class AnchorDETRHead(SetPredictionHead):
    """Head of `Anchor DETR <https://arxiv.org/abs/2109.07107>`_.

    All decoder layers share one classifier and one box MLP, and a query keeps
    its anchor point in all of them (no iterative refinement), so all layers
    are predicted at once.

    Args:
        *args, **kwargs: As in :class:`SetPredictionHead`.
    """

    trains_on_predictions_alone = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, share_pred_layer=True, **kwargs)

    def forward(
        self, decoder_output: DecoderOutput, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Predict all layers at once.

        Arguments and results are those of :class:`SetPredictionHead`.
        """
        return self.forward_layer(
            0, decoder_output.hidden_states, decoder_output.references[0]
        )
