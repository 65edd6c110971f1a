# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.registry import MODELS
from torch import Tensor

from ..layers.stage_outputs import DecoderOutput
from .set_prediction_head import SetPredictionHead


@MODELS.register_module()
class AnchorDETRHead(SetPredictionHead):
    """Head of `Anchor DETR <https://arxiv.org/abs/2109.07107>`_.

    One classifier and one box MLP serve all decoder layers, and in all of
    them a query predicts from the same anchor point: what a layer sees is
    not refined by the next. So all layers are predicted at once.

    Args:
        *args, **kwargs: As in :class:`SetPredictionHead`.
    """

    trains_on_predictions_alone = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, share_pred_layer=True, **kwargs)

    def forward(
        self, decoder_output: DecoderOutput, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes from the queries of every layer.

        Args:
            decoder_output (DecoderOutput): Queries, and the anchor points
                (cx, cy) in [0, 1], which are the same in each layer.
            **kwargs: What only the loss needs.

        Returns:
            tuple[Tensor, Tensor]:

            - cls_scores (Tensor): Logits, has shape
              (num_decoder_layers, bs, num_queries, num_classes).
            - bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
              (num_decoder_layers, bs, num_queries, 4).
        """
        return self.forward_layer(
            0, decoder_output.hidden_states, decoder_output.references[0]
        )
