# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.stage_outputs import AnchoredFirstStageOutput
from .base_deformable_detr import BaseDeformableDETR


@MODELS.register_module()
class DETA(BaseDeformableDETR):
    """DETA: Deformable DETR with IoU-based assignment instead of matching.

    Source: `NMS Strikes Back <https://arxiv.org/abs/2212.06137>`_.

    The queries come from a first stage with NMS,
    ``proposal_selector=dict(type='LevelNMSSelector')``, and are trained like
    the proposals of a two-stage detector, see :class:`DETAHead`. Without
    these two parts it is the improved Deformable DETR that the paper
    compares with.

    The architecture differs from Deformable DETR in one point: to the content
    of a query the projected memory at its proposal is added.

    Args:
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If ``as_two_stage`` is False.
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
        """Initialize as Deformable DETR, the projection by Xavier."""
        super().init_weights()
        nn.init.xavier_uniform_(self.pix_trans_fc.weight)

    def first_stage_output(
        self,
        references_unact: Tensor,
        features: Tensor,
        anchors_unact: Tensor,
        **predictions: Tensor,
    ) -> AnchoredFirstStageOutput:
        """Add, in training, the anchors by which proposals are assigned."""
        anchors = anchors_unact.sigmoid() if self.training else None
        return AnchoredFirstStageOutput(
            references_unact, features, anchors=anchors, **predictions
        )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Position from the proposal, content from proposal and memory.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        query, query_pos = super().embed_proposals(references_unact, features)
        query = query + self.pix_trans_norm(self.pix_trans_fc(features))
        return query, query_pos
