# Copyright (c) mmdetr authors. All rights reserved.
"""Row-column decoupled attention to a feature map."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from project.utils.errors import UserError

AxisPair = tuple[Tensor, Tensor]
"""Tensors of x and of y, in this order."""
Padding = tuple[Tensor | None, Tensor | None]
"""Padding masks of columns and of rows; None without padding."""


class RowColumnAttention(BaseModule):
    """Row-column decoupled attention (RCDA).

    Source: `Anchor DETR <https://arxiv.org/abs/2109.07107>`_, section 3.4.
    A query has one softmax over the columns of the map (the paper's "row"
    attention, along x) and one over its rows ("column" attention, along y);
    the weight of a pixel is their product. The keys of the columns are means
    over the rows and vice versa, and the map is reduced along one axis after
    the other, so the weights of all pixels are never computed.

    The means include padding, as in the source; the softmaxes mask it. The
    means are taken before the projection, which is equal and faster.

    Args:
        embed_dims (int): Dimension of queries and map. Defaults to 256.
        num_heads (int): Number of heads. Defaults to 8.
        dropout (float): Dropout of the attention weights and of the output.
            Defaults to 0.
        batch_first (bool): Part of mmcv's interface; the batch is always the
            first axis. Defaults to True.
        init_cfg (dict, optional): Initialization config.

    Raises:
        UserError: If ``embed_dims`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        dropout: float = 0.0,
        batch_first: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % num_heads:
            raise UserError(
                f'embed_dims={embed_dims} of the row-column attention should '
                f'be a multiple of num_heads={num_heads}'
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.batch_first = batch_first
        # Of query along x, query along y, key along x, key along y, value.
        self.in_proj_weight = nn.Parameter(
            torch.empty(5 * embed_dims, embed_dims)
        )
        self.in_proj_bias = nn.Parameter(torch.zeros(5 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        query_pos: AxisPair,
        value_pos: AxisPair,
        padding: Padding = (None, None),
    ) -> Tensor:
        """Attend to a map and add the result to the queries.

        Args:
            query (Tensor): Queries, has shape (bs, ..., dim).
            value (Tensor): Map, has shape (bs, h, w, dim).
            query_pos (tuple[Tensor, Tensor]): Positions of the queries along
                x and y, each is added to ``query``.
            value_pos (tuple[Tensor, Tensor]): Positions of the columns, has
                shape (bs or 1, w, dim), and of the rows, (bs or 1, h, dim).
            padding (tuple[Tensor | None, Tensor | None]): True for padded
                columns, has shape (bs, w), and for padded rows, (bs, h).
                Defaults to no padding.

        Returns:
            Tensor: Has the shape of ``query``.
        """
        inputs = (
            query + query_pos[0],
            query + query_pos[1],
            value.mean(1) + value_pos[0],
            value.mean(2) + value_pos[1],
            value,
        )
        projections = zip(
            inputs,
            self.in_proj_weight.chunk(5),
            self.in_proj_bias.chunk(5),
            strict=True,
        )
        query_x, query_y, key_x, key_y, values = (
            F.linear(*each).unflatten(-1, (self.num_heads, -1))
            for each in projections
        )
        output = _pool(
            self._weights(query_x, key_x, padding[0]),
            self._weights(query_y, key_y, padding[1]),
            values,
        )
        output = self.out_proj(output).view_as(query)
        return query + self.dropout(output)

    def _weights(
        self, query: Tensor, key: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Attention weights along one axis.

        Args:
            query (Tensor): Has shape (bs, ..., num_heads, head_dim).
            key (Tensor): Has shape (bs, length, num_heads, head_dim).
            padding (Tensor, optional): Has shape (bs, length).

        Returns:
            Tensor: Has shape (bs, num_heads, num_queries, length).
        """
        query = query.flatten(1, -3).transpose(1, 2) * query.shape[-1] ** -0.5
        scores = query @ key.permute(0, 2, 3, 1)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        return self.dropout(scores.softmax(-1))


def _pool(weights_x: Tensor, weights_y: Tensor, values: Tensor) -> Tensor:
    """Weighted sum of a map over both axes, the longer one first.

    The intermediate result, with a value for each query and each place on the
    remaining axis, is the largest tensor of the layer.

    Args:
        weights_x (Tensor): Has shape (bs, num_heads, num_queries, w).
        weights_y (Tensor): Has shape (bs, num_heads, num_queries, h).
        values (Tensor): Has shape (bs, h, w, num_heads, head_dim).

    Returns:
        Tensor: Has shape (bs, num_queries, num_heads * head_dim).
    """
    first, second = weights_x, weights_y
    values = values.permute(0, 3, 2, 1, 4)
    # An export has to serve both, so it does not look.
    is_wide = torch.compiler.is_exporting() or (
        weights_x.shape[-1] > weights_y.shape[-1]
    )
    if not is_wide:
        first, second = second, first
        values = values.transpose(2, 3)
    pooled = (first @ values.flatten(3)).unflatten(-1, values.shape[3:])
    pooled = second.unsqueeze(-2) @ pooled
    return pooled.squeeze(-2).transpose(1, 2).flatten(2)
