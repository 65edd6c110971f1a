# Copyright (c) mmdetr authors. All rights reserved.
"""Groups of decoder queries, and self-attention within them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor

# From this many groups on, one masked call is faster than a call per group.
# Measured on one core, forward and backward, with 300 or 900 queries and
# others in groups: 0.7 to 1.2 times the time for 6 groups, 0.5 for 21.
_MANY_GROUPS = 6


@dataclass(frozen=True)
class QueryGroup:
    """Consecutive queries of one kind.

    Args:
        name (str): Name, such as ``'one2one'``.
        num_queries (int): Number of queries.
        sees (tuple[str, ...]): Names of the other groups that its queries
            attend to, besides the group itself.
    """

    name: str
    num_queries: int
    sees: tuple[str, ...] = ()


class QueryGroups:
    """The decoder's queries as an ordered list of groups.

    Hybrid matching (H-DETR, section 3), denoising (DN-DETR) and dense
    queries (DDQ) all add groups of queries in training that others must not
    attend to. This list defines the split of the outputs and the attention
    mask.

    Args:
        groups (Sequence[QueryGroup]): In the order of the queries. Groups may
            be empty; their losses are then 0, so that all ranks have the same
            losses.
    """

    def __init__(self, groups: Sequence[QueryGroup]) -> None:
        self.groups = list(groups)
        ends = accumulate(group.num_queries for group in self.groups)
        self._slices = {
            group.name: slice(end - group.num_queries, end)
            for group, end in zip(self.groups, ends, strict=True)
        }
        self._mask: Tensor | None = None

    @property
    def is_masked(self) -> bool:
        """bool: Whether attention needs :meth:`attention_mask`."""
        return False

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def __getitem__(self, name: str) -> slice:
        """Slice of the queries of a group."""
        return self._slices[name]

    def attention_blocks(self) -> Iterator[tuple[slice, list[slice]]]:
        """Which queries attend to which.

        Yields:
            tuple[slice, list[slice]]: The queries of one group, and the
            keys they attend to, in the order of the queries.
        """
        for group in self.groups:
            if not group.num_queries:
                continue
            visible = {group.name, *group.sees}
            keys = [s for name, s in self._slices.items() if name in visible]
            yield self._slices[group.name], keys

    def attention_mask(self, device: torch.device) -> Tensor:
        """Attention mask, which is cached.

        Args:
            device (torch.device): Device of the mask.

        Returns:
            Tensor: True where a query (row) attends to a key (column), has
            shape (num_queries, num_queries).
        """
        if self._mask is None or self._mask.device != device:
            # Only group indices and the small mask between groups are copied
            # to the device.
            groups = self.groups
            sees = torch.tensor(
                [
                    [key.name in (query.name, *query.sees) for key in groups]
                    for query in groups
                ]
            )
            sizes = [group.num_queries for group in groups]
            group = torch.tensor(
                [i for i, size in enumerate(sizes) for _ in range(size)],
                dtype=torch.int64,
            )
            sees, group = (
                tensor.to(device, non_blocking=True)
                for tensor in (sees, group)
            )
            self._mask = sees[group[:, None], group]
        return self._mask


def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    query_groups: QueryGroups | None = None,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention within groups of queries.

    A few groups are computed one by one, which skips masked products; many
    share one masked call.

    Args:
        query (Tensor): Projected queries, has shape
            (bs, num_heads, num_queries, head_dim).
        key (Tensor): Projected keys, has the same shape.
        value (Tensor): Projected values, has the same shape.
        query_groups (QueryGroups, optional): Groups of the queries. By
            default all attend to each other.
        key_padding_mask (Tensor, optional): True where a key is padding, has
            shape (bs, num_queries); not together with groups.
        dropout (float): Dropout of the attention weights.

    Returns:
        Tensor: Attended values, has the shape of ``query``.

    Raises:
        ValueError: If there are both groups and padding.
    """
    attend = partial(F.scaled_dot_product_attention, dropout_p=dropout)
    if query_groups is not None and query_groups.is_masked:
        mask = query_groups.attention_mask(query.device)
        return attend(query, key, value, attn_mask=mask)
    blocks = list(query_groups.attention_blocks()) if query_groups else []
    if query_groups is None or len(blocks) <= 1:
        is_valid = None
        if key_padding_mask is not None:
            is_valid = ~key_padding_mask[:, None, None]
        return attend(query, key, value, attn_mask=is_valid)
    if key_padding_mask is not None:
        raise ValueError('groups of queries have no padding')
    if len(blocks) >= _MANY_GROUPS:
        mask = query_groups.attention_mask(query.device)
        return attend(query, key, value, attn_mask=mask)
    return torch.cat(
        [
            attend(query[:, :, queries], _take(key, keys), _take(value, keys))
            for queries, keys in blocks
        ],
        dim=2,
    )


def split_heads(tensor: Tensor, num_heads: int) -> Tensor:
    """Go from (bs, num, dim) to (bs, num_heads, num, head_dim)."""
    return tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def join_heads(tensor: Tensor) -> Tensor:
    """Go from (bs, num_heads, num, head_dim) to (bs, num, dim)."""
    return tensor.transpose(1, 2).flatten(2)


class GroupedSelfAttention(MultiheadAttention):
    """Self-attention within groups of queries.

    Equal to mmcv's ``MultiheadAttention`` with the mask of the groups, but by
    PyTorch's fused kernels, which store no attention weights. Parameters and
    their names are mmcv's.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        query_groups: QueryGroups | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend among the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            key (Tensor, optional): Unused; keys are the queries.
            value (Tensor, optional): Unused; values are the queries.
            identity (Tensor, optional): What the result is added to.
                Defaults to ``query``.
            query_pos (Tensor, optional): Position of the queries, has the
                shape of ``query``.
            key_pos (Tensor, optional): Unused.
            attn_mask (Tensor, optional): Must be None; use ``query_groups``.
            key_padding_mask (Tensor, optional): True where a query is
                padding, has shape (bs, num_queries); not with groups.
            query_groups (QueryGroups, optional): Groups of the queries. By
                default all attend to each other.

        Returns:
            Tensor: Attended queries, has shape (bs, num_queries, dim).

        Raises:
            ValueError: If there is a mask.
        """
        if attn_mask is not None:
            raise ValueError('give query_groups instead of an attention mask')
        identity = query if identity is None else identity
        attn = self.attn
        # In-projections of queries and keys, and that of values.
        sizes = (2 * self.embed_dims, self.embed_dims)
        weight, value_weight = attn.in_proj_weight.split(sizes)
        bias, value_bias = attn.in_proj_bias.split(sizes)
        position = query if query_pos is None else query + query_pos
        projected = (
            *F.linear(position, weight, bias).chunk(2, dim=-1),
            F.linear(query, value_weight, value_bias),
        )
        output = grouped_attention(
            *(split_heads(x, attn.num_heads) for x in projected),
            query_groups=query_groups,
            key_padding_mask=key_padding_mask,
            dropout=attn.dropout if self.training else 0.0,
        )
        output = attn.out_proj(join_heads(output))
        return identity + self.dropout_layer(self.proj_drop(output))


def _take(tensor: Tensor, slices: list[slice]) -> Tensor:
    """Concatenate slices of the third axis; a single one is not copied."""
    if len(slices) == 1:
        return tensor[:, :, slices[0]]
    return torch.cat([tensor[:, :, s] for s in slices], dim=2)
