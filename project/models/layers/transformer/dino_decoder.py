# Copyright (c) mmdetr authors. All rights reserved.
"""DINO's decoder, whose layers may have auxiliary outputs."""

from dataclasses import replace
from typing import Any

from mmdet.models.layers.transformer import MLP
from mmengine.model import ModuleList
from torch import nn

from ..stage_outputs import DecoderOutput
from .deformable_layers import ReferenceEncodingDecoder


class DINODecoder(ReferenceEncodingDecoder):
    """Decoder of DINO.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_, section 3. Results
    and parameter names equal those of mmdet's ``DinoTransformerDecoder``.
    Queries are normalized for the heads, but not for the next layer; each
    auxiliary output has its own norm.

    Args:
        *args: As in :class:`BoxRefinementDecoder`.
        bbox_roi_extractor (dict, optional): RoI extractor of
            ``ProposalRefinerLayer``, which is then the default type of the
            layers.
        draw_mergers (bool): Whether to initialize the mergers of these layers
            by Xavier. Defaults to False.
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
        """Initialize layers, norms and the embedding of the boxes."""
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
            DecoderOutput: With normalized queries. The box branches have
            seen them before the norm, so the head has to apply them again.
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
