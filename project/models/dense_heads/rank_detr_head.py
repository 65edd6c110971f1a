# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor, nn

from .h_detr_head import HDETRHead


@MODELS.register_module()
class RankDETRHead(HDETRHead):
    """Head of `Rank-DETR <https://arxiv.org/abs/2310.08854>`_.

    Rank-adaptive classification head (section 3.2): in every decoder layer,
    each rank has a learned bias for each class.

    Args:
        num_ranks (int): Number of ranks with biases, at least the number of
            queries; 0 for none. Set by the detector. Defaults to 0.
        *args, **kwargs: As in :class:`HDETRHead`.
    """

    def __init__(self, *args: Any, num_ranks: int = 0, **kwargs: Any) -> None:
        self.num_ranks = num_ranks
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize the branches and the biases of the ranks."""
        super()._init_layers()
        if self.num_ranks:
            num_layers = self.num_pred_layer - self.as_two_stage
            self.rank_adaptive_classhead_emb = ModuleList(
                nn.Embedding(self.num_ranks, self.cls_out_channels)
                for _ in range(num_layers)
            )

    def init_weights(self) -> None:
        """Initialize the branches as mmdet does, and the biases with 0."""
        super().init_weights()
        if self.num_ranks:
            for table in self.rank_adaptive_classhead_emb:
                nn.init.zeros_(table.weight)

    def forward_layer(
        self,
        layer_id: int,
        hidden_state: Tensor,
        reference: Tensor,
        deltas: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict from the queries of one layer, sorted by rank.

        Arguments and results are those of :class:`SetPredictionHead`.
        """
        cls_scores, boxes = super().forward_layer(
            layer_id, hidden_state, reference, deltas
        )
        if self.num_ranks:
            biases = self.rank_adaptive_classhead_emb[layer_id].weight
            cls_scores = cls_scores + biases[: cls_scores.shape[1]]
        return cls_scores, boxes
