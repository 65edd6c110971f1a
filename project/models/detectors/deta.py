# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.stage_outputs import AnchoredFirstStageOutput
from .base_deformable_detr import BaseDeformableDETR


@MODELS.register_module()
class DETA(BaseDeformableDETR):
    """Deformable DETR that assigns by IoU instead of matching, DETA.

    Source: `NMS Strikes Back <https://arxiv.org/abs/2212.06137>`_.

    The queries of DETA come from a first stage with non-maximum suppression,
    ``proposal_selector=dict(type='LevelNMSSelector')``, and are trained like
    the proposals of a two-stage detector: :class:`DETAHead` tells how.
    Without these parts it is the improved Deformable DETR that the paper
    compares with. Both have the one change of architecture below.

    A query's content is half of its proposal's embedding, as in Deformable
    DETR, plus the projected memory that the proposal came from.

    Args:
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If there is no first stage.
    """

    def __init__(
        self, *args: Any, as_two_stage: bool = False, **kwargs: Any
    ) -> None:
        if not as_two_stage:
            raise UserError(
                'DETA needs as_two_stage=True: its queries come from a first '
                'stage'
            )
        super().__init__(*args, as_two_stage=as_two_stage, **kwargs)

    def _init_first_stage(self) -> None:
        """Initialize the first stage, and the projection of the memory."""
        super()._init_first_stage()
        self.pix_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.pix_trans_norm = nn.LayerNorm(self.embed_dims)

    def init_weights(self) -> None:
        """Initialize as Deformable DETR does, the projection likewise."""
        super().init_weights()
        nn.init.xavier_uniform_(self.pix_trans_fc.weight)

    def first_stage_output(
        self,
        references_unact: Tensor,
        features: Tensor,
        anchors_unact: Tensor,
        **predictions: Tensor,
    ) -> AnchoredFirstStageOutput:
        """Add, in training, the anchors that proposals are assigned by."""
        anchors = anchors_unact.sigmoid() if self.training else None
        return AnchoredFirstStageOutput(
            references_unact, features, anchors=anchors, **predictions
        )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Position from the proposal, content from it and from the memory.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        query, query_pos = super().embed_proposals(references_unact, features)
        query = query + self.pix_trans_norm(self.pix_trans_fc(features))
        return query, query_pos
