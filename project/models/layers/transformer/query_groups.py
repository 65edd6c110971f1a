# Copyright (c) mmdetr authors. All rights reserved.
"""Groups of decoder queries and the self-attention that keeps them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor


@dataclass(frozen=True)
class QueryGroup:
    """Consecutive queries that are treated alike.

    Args:
        name (str): What the group is for, such as ``'one2one'``.
        num_queries (int): How many queries it has.
        sees (tuple[str, ...]): Names of the other groups that its queries
            attend to, besides the group itself.
    """

    name: str
    num_queries: int
    sees: tuple[str, ...] = ()


class QueryGroups:
    """The decoder's queries as an ordered list of groups.

    Hybrid matching (H-DETR, section 3), denoising (DN-DETR) and dense
    queries (DDQ) all extend the queries in training by groups that others
    must not see. From this list follow how outputs are split and which
    queries attend to which.

    Args:
        groups (Sequence[QueryGroup]): In the order of the queries. Some may
            be empty: they still have a place, and losses that are 0, so that
            all ranks have the same ones.
    """

    def __init__(self, groups: Sequence[QueryGroup]) -> None:
        self.groups = list(groups)
        ends = accumulate(group.num_queries for group in self.groups)
        self._slices = {
            group.name: slice(end - group.num_queries, end)
            for group, end in zip(self.groups, ends, strict=True)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def __getitem__(self, name: str) -> slice:
        """Where the queries of a group lie."""
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


class GroupedSelfAttention(MultiheadAttention):
    """Self-attention within groups of queries.

    Equal to mmcv's ``MultiheadAttention`` under the mask that blocks what a
    group may not see, but every group is attended to by itself: no masked
    product is computed, no attention weights are stored, and PyTorch's fused
    kernels apply. Parameters and their names are those of mmcv's class.
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
        *,
        query_groups: QueryGroups | None = None,
        **kwargs,
    ) -> Tensor:
        """Attend among the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            key (Tensor, optional): Not used; keys are the queries.
            value (Tensor, optional): Not used; values are the queries.
            identity (Tensor, optional): What the result is added to.
                Defaults to ``query``.
            query_pos (Tensor, optional): Position of the queries, has the
                shape of ``query``.
            key_pos (Tensor, optional): Not used.
            attn_mask (Tensor, optional): Must be None, ``query_groups`` says
                who sees whom.
            query_groups (QueryGroups, optional): Groups of the queries. By
                default all the queries see each other.

        Returns:
            Tensor: Attended queries, has shape (bs, num_queries, dim).

        Raises:
            ValueError: If there is a mask.
        """
        if attn_mask is not None:
            raise ValueError('give query_groups instead of an attention mask')
        identity = query if identity is None else identity
        value = query.transpose(0, 1)
        key = value if query_pos is None else value + query_pos.transpose(0, 1)
        blocks = list(query_groups.attention_blocks()) if query_groups else []
        if len(blocks) <= 1:
            output = self.attn(key, key, value, need_weights=False)[0]
        else:
            output = torch.cat(
                [
                    self.attn(
                        key[queries],
                        _take(key, keys),
                        _take(value, keys),
                        need_weights=False,
                    )[0]
                    for queries, keys in blocks
                ]
            )
        output = output.transpose(0, 1)
        return identity + self.dropout_layer(self.proj_drop(output))


def _take(tensor: Tensor, slices: list[slice]) -> Tensor:
    """Concatenate slices of the first axis, without a copy for only one."""
    if len(slices) == 1:
        return tensor[slices[0]]
    return torch.cat([tensor[s] for s in slices])
