# Copyright (c) mmdetr authors. All rights reserved.
"""Conditional DETR's attention with query groups, on fused kernels."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers.transformer import ConditionalAttention
from torch import Tensor, nn

from .deformable_attention import LevelShapes
from .query_groups import (
    QueryGroups,
    grouped_attention,
    join_heads,
    split_heads,
)


class ConditionalSelfAttention(ConditionalAttention):
    """Self-attention of Conditional DETR within groups of queries.

    Content and position are projected separately. Parameters, their names
    and, without groups, the results are those of mmdet's
    ``ConditionalAttention``.
    """

    def project_query(self, query: Tensor, query_pos: Tensor) -> Tensor:
        """Sum of projected content and position of the queries."""
        return self.qcontent_proj(query) + self.qpos_proj(query_pos)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        query_groups: QueryGroups | None = None,
    ) -> Tensor:
        """Attend among the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            query_pos (Tensor): Their positions, has the same shape.
            query_groups (QueryGroups, optional): Groups of the queries. By
                default all attend to each other.

        Returns:
            Tensor: Attended queries, has shape (bs, num_queries, dim).
        """
        projected = (
            self.project_query(query, query_pos),
            self.kcontent_proj(query) + self.kpos_proj(query_pos),
            self.v_proj(query),
        )
        output = grouped_attention(
            *(split_heads(x, self.num_heads) for x in projected),
            query_groups=query_groups,
            dropout=self.attn_drop.p if self.training else 0.0,
        )
        return query + self.proj_drop(self.out_proj(join_heads(output)))


class ConditionalCrossAttention(ConditionalAttention):
    """Cross-attention of Conditional DETR by PyTorch's fused kernels.

    Content and position are concatenated in each head. Parameters, their
    names and the results are those of mmdet's ``ConditionalAttention``.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        query_pos: Tensor,
        key_pos: Tensor,
        ref_sine_embed: Tensor,
        is_first: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Attend from queries to features.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            key (Tensor): Features, has shape (bs, num_keys, dim).
            query_pos (Tensor): Positions of the queries, has their shape.
            key_pos (Tensor): Positions of the features, has their shape.
            ref_sine_embed (Tensor): Encoded centres of the references, has
                the shape of ``query``.
            is_first (bool): Whether this is the decoder's first layer, in
                which positions are also added to the contents. Defaults to
                False.
            **kwargs: Passed on to :meth:`attend`.

        Returns:
            Tensor: Attended queries, has shape (bs, num_queries, dim).
        """
        content, key_content = (
            self.qcontent_proj(query),
            self.kcontent_proj(key),
        )
        position = self.qpos_sine_proj(ref_sine_embed)
        key_position = self.kpos_proj(key_pos)
        if is_first or self.keep_query_pos:
            content = content + self.qpos_proj(query_pos)
            key_content = key_content + key_position
        output = self.attend(
            self._concatenate(content, position),
            self._concatenate(key_content, key_position),
            split_heads(self.v_proj(key), self.num_heads),
            **kwargs,
        )
        return query + self.proj_drop(self.out_proj(join_heads(output)))

    def _concatenate(self, content: Tensor, position: Tensor) -> Tensor:
        """Join within each head: (bs, num_heads, num, 2 * head_dim)."""
        parts = [split_heads(x, self.num_heads) for x in (content, position)]
        return torch.cat(parts, dim=-1)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Average the values by their attention weights.

        Args:
            query (Tensor): Has shape
                (bs, num_heads, num_queries, 2 * head_dim).
            key (Tensor): Has shape (bs, num_heads, num_keys, 2 * head_dim).
            value (Tensor): Has shape (bs, num_heads, num_keys, head_dim).
            key_padding_mask (Tensor, optional): True where a key is padding,
                has shape (bs, num_keys).

        Returns:
            Tensor: Has shape (bs, num_heads, num_queries, head_dim).
        """
        is_valid = None
        if key_padding_mask is not None:
            is_valid = ~key_padding_mask[:, None, None]
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=is_valid,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )


class LevelwiseCrossAttention(ConditionalCrossAttention):
    """Dense cross-attention to several feature levels.

    Source: the authors' code of DN-DETR, the variant with only the encoder
    deformable. Each level has its own softmax; the outputs of the levels are
    averaged with weights predicted from the query.

    Args:
        embed_dims (int): Dimension of queries and features.
        num_heads (int): Number of heads.
        num_levels (int): Number of feature levels. Defaults to 4.
        **kwargs: As in mmdet's ``ConditionalAttention``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(embed_dims, num_heads, **kwargs)
        self.level_weights = nn.Linear(embed_dims, num_levels)

    def attend(  # type: ignore[override]  # its layer always has the levels
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        *,
        level_shapes: LevelShapes,
        level_query: Tensor,
    ) -> Tensor:
        """Attend to each level separately and average the results.

        The authors average after the output projection, which is equal: the
        levels share it, and their weights sum to 1.

        Args:
            query (Tensor): As in :class:`ConditionalCrossAttention`.
            key (Tensor): Keys of all levels, see there.
            value (Tensor): Values of all levels, see there.
            key_padding_mask (Tensor, optional): See there.
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            level_query (Tensor): Queries that predict the weights of the
                levels, has shape (bs, num_queries, dim).

        Returns:
            Tensor: Has shape (bs, num_heads, num_queries, head_dim).
        """
        sizes = [height * width for height, width in level_shapes]
        masks: Sequence[Tensor | None] = [None] * len(sizes)
        if key_padding_mask is not None:
            masks = key_padding_mask.split(sizes, dim=1)
        levels = zip(
            key.split(sizes, 2), value.split(sizes, 2), masks, strict=True
        )
        outputs = [
            super(LevelwiseCrossAttention, self).attend(query, *level)
            for level in levels
        ]
        weights = self.level_weights(level_query).softmax(-1)
        mixed = (
            output * weight[:, None, :, None]
            for output, weight in zip(outputs, weights.unbind(-1), strict=True)
        )
        return reduce(torch.add, mixed)
