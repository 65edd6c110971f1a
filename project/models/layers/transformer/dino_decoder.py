# Copyright (c) mmdetr authors. All rights reserved.
"""DINO's decoder, whose layers may have auxiliary results."""

from dataclasses import replace
from typing import Any

from mmdet.models.layers.transformer import MLP, coordinate_to_encoding
from mmengine.model import ModuleList
from torch import Tensor, nn

from ...utils.precision import like_weights
from ..stage_outputs import DecoderOutput
from .deformable_layers import BoxRefinementDecoder


class DINODecoder(BoxRefinementDecoder):
    """Deformable decoder that encodes its references anew in each layer.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_, section 3; numbers
    and names of parameters are those of mmdet's ``DinoTransformerDecoder``.
    What the heads get is normed, what the next layer gets is not. Auxiliary
    results have a norm each.

    Args:
        *args: As in :class:`BoxRefinementDecoder`.
        bbox_roi_extractor (dict, optional): How the regions of the queries
            are cut out, for layers of the type ``ProposalRefinerLayer``,
            which is then the default.
        draw_mergers (bool): Whether the weights of these layers' mergers are
            drawn. Defaults to False.
        **kwargs: As in :class:`BoxRefinementDecoder`.
    """

    def __init__(
        self,
        *args: Any,
        layer_cfg: dict,
        bbox_roi_extractor: dict | None = None,
        draw_mergers: bool = False,
        **kwargs: Any,
    ) -> None:
        if bbox_roi_extractor is not None:
            layer_cfg = {
                'type': 'ProposalRefinerLayer',
                'bbox_roi_extractor': bbox_roi_extractor,
                'draw_mergers': draw_mergers,
                **layer_cfg,
            }
        super().__init__(*args, layer_cfg=layer_cfg, **kwargs)

    def _init_layers(self) -> None:
        """Initialize layers, norms, and what turns boxes into positions."""
        super()._init_layers()
        dims = self.embed_dims
        self.ref_point_head = MLP(dims * 2, dims, dims, 2)
        self.norm = nn.LayerNorm(dims)
        if self.num_auxiliary:
            self.norm_aux = ModuleList(
                nn.LayerNorm(dims) for _ in range(self.num_auxiliary)
            )

    def forward(self, *args: Any, **kwargs: Any) -> DecoderOutput:
        """Decode queries, see :class:`BoxRefinementDecoder`.

        Returns:
            DecoderOutput: Likewise, all queries normed. The box heads have
            seen them as they were before, so the head applies them again.
        """
        output = super().forward(*args, **kwargs)
        auxiliary = output.auxiliary
        norms = self.norm_aux if auxiliary else ()
        return replace(
            output,
            hidden_states=self.norm(output.hidden_states),
            box_deltas=(),
            auxiliary=tuple(
                norm(results)
                for norm, results in zip(norms, auxiliary, strict=True)
            ),
        )

    def embed_position(
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor | None,
        reference_points: Tensor,
    ) -> Tensor:
        """Embed the boxes, as they lie in the first level.

        Arguments and results are those of :class:`BoxRefinementDecoder`.
        """
        encoding = coordinate_to_encoding(
            reference_points[:, :, 0], num_feats=self.embed_dims // 2
        )
        encoding = like_weights(encoding, self.ref_point_head)
        return self.ref_point_head(encoding)
