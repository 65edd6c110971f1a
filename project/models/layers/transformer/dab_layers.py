# Copyright (c) mmdetr authors. All rights reserved.
"""DAB-DETR's encoder, and its decoder with query groups."""

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers.transformer import (
    MLP,
    DABDetrTransformerDecoderLayer,
    DABDetrTransformerEncoder,
    DetrTransformerDecoder,
    DetrTransformerEncoderLayer,
    coordinate_to_encoding,
)
from mmengine.model import ModuleList
from torch import Tensor, nn

from project.utils.settings import Eps, checked

from ...utils.box_ops import refine_reference
from ...utils.precision import like_weights
from ..recomputation import RecomputedEncoder, recompute_layers
from ..stage_outputs import DecoderOutput
from .conditional_attention import (
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    LevelwiseCrossAttention,
)
from .layer_norms import layer_norms
from .query_groups import GroupedSelfAttention, QueryGroups


class DABEncoderLayer(DetrTransformerEncoderLayer):
    """mmdet's encoder layer with fused self-attention."""

    def _init_layers(self) -> None:
        """Initialize self_attn, ffn, and norms."""
        self.self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 2)


class DABEncoder(RecomputedEncoder, DABDetrTransformerEncoder):
    """mmdet's DAB-DETR encoder with fused self-attention.

    The first ``num_cp`` layers use activation checkpointing.
    """

    def _init_layers(self) -> None:
        """Initialize encoder layers, and the scale of the positions."""
        self.layers = ModuleList(
            DABEncoderLayer(**self.layer_cfg) for _ in range(self.num_layers)
        )
        dims = self.embed_dims = self.layers[0].embed_dims
        self.query_scale = MLP(dims, dims, dims, 2)
        recompute_layers(self.layers, max(self.num_cp, 0))


class DABDecoderLayer(DABDetrTransformerDecoderLayer):
    """mmdet's decoder layer with query groups and fused attention."""

    cross_attn_class = ConditionalCrossAttention

    def _init_layers(self) -> None:
        """Initialize self_attn, cross_attn, ffn, and norms."""
        self.self_attn = ConditionalSelfAttention(**self.self_attn_cfg)
        self.cross_attn = self.cross_attn_class(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 3)
        self.keep_query_pos = self.cross_attn.keep_query_pos

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        query_pos: Tensor,
        query_groups: QueryGroups | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Decode the queries by one layer.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            key (Tensor): Features, has shape (bs, num_keys, dim).
            query_pos (Tensor): Positions of the queries, has their shape.
            query_groups (QueryGroups, optional): Groups of the queries.
            **kwargs: Arguments of the cross-attention.

        Returns:
            Tensor: Queries, has shape (bs, num_queries, dim).
        """
        query = self.norms[0](self.self_attn(query, query_pos, query_groups))
        query = self.cross_attn(query, key, query_pos=query_pos, **kwargs)
        query = self.norms[1](query)
        return self.norms[2](self.ffn(query))


class LevelwiseDABDecoderLayer(DABDecoderLayer):
    """Decoder layer for several feature levels.

    The weights of the levels are predicted from the queries that enter the
    layer.
    """

    cross_attn_class = LevelwiseCrossAttention

    def forward(
        self, query: Tensor, key: Tensor, *, query_pos: Tensor, **kwargs: Any
    ) -> Tensor:
        """Decode the queries, see :class:`DABDecoderLayer`."""
        level_query = self.self_attn.project_query(query, query_pos)
        return super().forward(
            query, key, query_pos=query_pos, level_query=level_query, **kwargs
        )


class DABDecoder(DetrTransformerDecoder):
    """Decoder of DAB-DETR, whose queries are anchor boxes.

    Source: `DAB-DETR <https://arxiv.org/abs/2201.12329>`_, section 4. mmdet's
    decoder in the variant of the published DAB-DETR results, with query
    groups.

    Args:
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid:
            1e-3 in the official codes, 1e-5 in mmdet. Defaults to 1e-3.
        num_cp (int): Number of layers with activation checkpointing.
            Defaults to 0.
        *args, **kwargs: As in mmdet's ``DetrTransformerDecoder``; the
            outputs of all layers are always returned.
    """

    layer_class = DABDecoderLayer
    num_auxiliary = 0

    @checked('model.decoder')
    def __init__(
        self,
        *args: Any,
        inverse_sigmoid_eps: Eps = 1e-3,
        num_cp: int = 0,
        **kwargs: Any,
    ) -> None:
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        self.num_cp = num_cp
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize decoder layers and the embedding of the boxes."""
        self.layers = ModuleList(
            self.layer_class(**self.layer_cfg) for _ in range(self.num_layers)
        )
        dims = self.embed_dims = self.layers[0].embed_dims
        self.post_norm = build_norm_layer(self.post_norm_cfg, dims)[1]
        # Shared by all layers: scale of the encoded centre, position of the
        # box, width and height.
        self.query_scale = MLP(dims, dims, dims, 2)
        self.ref_point_head = MLP(2 * dims, dims, dims, 2)
        self.ref_anchor_head = MLP(dims, dims, 2, 2)
        if not self.layers[0].keep_query_pos:
            for layer in self.layers[1:]:
                layer.cross_attn.qpos_proj = None
        recompute_layers(self.layers, self.num_cp)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        reference_points: Tensor,
        reg_branch: nn.Module,
        query_groups: QueryGroups | None = None,
        **kwargs: Any,
    ) -> DecoderOutput:
        """Decode queries, refining their boxes after each layer.

        Args:
            query (Tensor): Contents, has shape (bs, num_queries, dim).
            key (Tensor): Features, has shape (bs, num_keys, dim).
            reference_points (Tensor): Boxes (cx, cy, w, h) in [0, 1], has
                shape (bs, num_queries, 4).
            reg_branch (nn.Module): Box branch, shared by the layers.
            query_groups (QueryGroups, optional): Groups of the queries.
            **kwargs: Passed on to every layer.

        Returns:
            DecoderOutput: The normalized queries after each layer, and the
            boxes before each, with gradient to the layer before.
        """
        hidden_states, references = [], [reference_points]
        for layer_id, layer in enumerate(self.layers):
            boxes = (
                references[-1] if layer_id == 0 else references[-1].detach()
            )
            encoding = coordinate_to_encoding(
                boxes, num_feats=self.embed_dims // 2
            )
            query = layer(
                query,
                key,
                query_pos=self.ref_point_head(
                    like_weights(encoding, self.ref_point_head)
                ),
                ref_sine_embed=self._sine_embed(
                    layer_id, encoding, query, boxes
                ),
                is_first=layer_id == 0,
                query_groups=query_groups,
                **kwargs,
            )
            hidden_states.append(self.post_norm(query))
            if layer_id + 1 < self.num_layers:
                reference = refine_reference(
                    reg_branch(query), boxes, self.inverse_sigmoid_eps
                )
                references.append(reference)
        layer_groups = (query_groups,) * self.num_layers
        return DecoderOutput(
            torch.stack(hidden_states), references, layer_groups
        )

    def _sine_embed(
        self, layer_id: int, encoding: Tensor, query: Tensor, boxes: Tensor
    ) -> Tensor:
        """Position encoding of the cross-attention, has shape of ``query``.

        The encoded centre, (y, x), is scaled by the content and modulated by
        the width and height predicted from the content, relative to the
        box's, so that attention is as wide and high as the box.
        """
        embed = encoding[..., : self.embed_dims]
        if layer_id:
            embed = embed * self.query_scale(query)
        # Ratios can reach 1000, too much for half precision.
        sizes = self.ref_anchor_head(query).to(boxes.dtype).sigmoid()
        ratios = (sizes / boxes[..., 2:]).flip(-1)  # (w, h) -> (h, w)
        embed = embed.unflatten(-1, (2, -1)) * ratios[..., None]
        return like_weights(embed.flatten(-2), self.ref_anchor_head)


class LevelwiseDABDecoder(DABDecoder):
    """DAB-DETR's decoder for several feature levels."""

    layer_class = LevelwiseDABDecoderLayer
