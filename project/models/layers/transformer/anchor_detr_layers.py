# Copyright (c) mmdetr authors. All rights reserved.
"""Anchor DETR's encoder and decoder, on row-column decoupled attention."""

import math
from functools import partial
from typing import Any

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers.transformer import (
    DetrTransformerDecoder,
    DetrTransformerDecoderLayer,
    DetrTransformerEncoder,
    DetrTransformerEncoderLayer,
)
from torch import Tensor

from ...utils.weight_init import cloned_layers
from ..recomputation import RecomputedEncoder, recompute_layers
from .layer_norms import layer_norms
from .query_groups import GroupedSelfAttention
from .row_column_attention import AxisPair, Padding, RowColumnAttention


class AnchorEncoderLayer(DetrTransformerEncoderLayer):
    """mmdet's encoder layer with :class:`RowColumnAttention`."""

    def _init_layers(self) -> None:
        """Initialize self-attention, FFN, and normalization."""
        self.self_attn = RowColumnAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 2)

    def forward(
        self, feat: Tensor, feat_pos: AxisPair, padding: Padding
    ) -> Tensor:
        """Let every pixel attend to the whole map.

        Arguments and results are those of :meth:`AnchorEncoder.forward`.
        """
        pos_x, pos_y = feat_pos
        pixel_pos = pos_x[:, None], pos_y[:, :, None]
        feat = self.self_attn(feat, feat, pixel_pos, feat_pos, padding)
        feat = self.norms[0](feat)
        return self.norms[1](self.ffn(feat))


class AnchorEncoder(RecomputedEncoder, DetrTransformerEncoder):
    """Encoder of `Anchor DETR <https://arxiv.org/abs/2109.07107>`_.

    The first ``num_cp`` layers use activation checkpointing.
    """

    def _init_layers(self) -> None:
        """Initialize encoder layers, which start as copies of one."""
        self.layers = cloned_layers(
            partial(AnchorEncoderLayer, **self.layer_cfg), self.num_layers
        )
        self.embed_dims = self.layers[0].embed_dims
        recompute_layers(self.layers, max(self.num_cp, 0))

    def forward(
        self, feat: Tensor, feat_pos: AxisPair, padding: Padding
    ) -> Tensor:
        """Encode a feature map.

        Args:
            feat (Tensor): Features, has shape (bs, h, w, dim).
            feat_pos (tuple[Tensor, Tensor]): Positions of the columns, has
                shape (bs or 1, w, dim), and of the rows, (bs or 1, h, dim).
            padding (tuple[Tensor | None, Tensor | None]): True for padded
                columns, has shape (bs, w), and for padded rows, (bs, h);
                None without padding.

        Returns:
            Tensor: Memory, has the shape of ``feat``.
        """
        for layer in self.layers:
            feat = layer(feat, feat_pos, padding)
        return feat


class AnchorDecoderLayer(DetrTransformerDecoderLayer):
    """mmdet's decoder layer with :class:`RowColumnAttention`."""

    def _init_layers(self) -> None:
        """Initialize self_attn, cross-attn, ffn, and norms."""
        self.self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.cross_attn = RowColumnAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 3)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        *,
        query_pos: Tensor,
        query_axis_pos: AxisPair,
        memory_pos: AxisPair,
        padding: Padding,
    ) -> Tensor:
        """Let queries attend to each other and to the image.

        The arguments are those of :meth:`AnchorDecoder.forward`.

        Returns:
            Tensor: Has the shape of ``query``.
        """
        query = self.self_attn(query, query_pos=query_pos)
        query = self.norms[0](query)
        query = self.cross_attn(
            query, memory, query_axis_pos, memory_pos, padding
        )
        query = self.norms[1](query)
        return self.norms[2](self.ffn(query))


class AnchorDecoder(DetrTransformerDecoder):
    """Decoder of `Anchor DETR <https://arxiv.org/abs/2109.07107>`_.

    The positions of the queries are the same in all layers, and there is no
    norm after the last one.

    Args:
        num_cp (int): Number of layers with activation checkpointing.
            Defaults to 0.
        *args, **kwargs: As in mmdet's ``DetrTransformerDecoder``; the
            outputs of all layers are always returned.
    """

    def __init__(self, *args: Any, num_cp: int = 0, **kwargs: Any) -> None:
        self.num_cp = num_cp
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize decoder layers, which start as copies of one."""
        self.layers = cloned_layers(
            partial(AnchorDecoderLayer, **self.layer_cfg), self.num_layers
        )
        self.embed_dims = self.layers[0].embed_dims
        recompute_layers(self.layers, self.num_cp)

    def forward(self, query: Tensor, memory: Tensor, **kwargs: Any) -> Tensor:
        """Decode the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded map, has shape (bs, h, w, dim).
            **kwargs: ``query_pos``, for self-attention, has the shape of
                ``query``; ``query_axis_pos``, a pair of these for x and y,
                for cross-attention; ``memory_pos`` and ``padding`` as in
                :class:`AnchorEncoder`.

        Returns:
            Tensor: Queries after each layer, has shape
            (num_decoder_layers, bs, num_queries, dim).
        """
        hidden_states = []
        for layer in self.layers:
            query = layer(query, memory, **kwargs)
            hidden_states.append(query)
        return torch.stack(hidden_states)


def sine_encoding(coordinates: Tensor, num_feats: int) -> Tensor:
    """Sinusoidal encoding of single coordinates.

    Otherwise as mmdet's ``coordinate_to_encoding``.

    Args:
        coordinates (Tensor): In [0, 1], has shape (...).
        num_feats (int): Width of the encoding, even.

    Returns:
        Tensor: Alternating sines and cosines, has shape (..., num_feats).
    """
    exponents = torch.arange(
        0, num_feats, 2, dtype=coordinates.dtype, device=coordinates.device
    )
    waves = 10000 ** (exponents / num_feats)
    angles = coordinates[..., None] * (2 * math.pi) / waves
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)
