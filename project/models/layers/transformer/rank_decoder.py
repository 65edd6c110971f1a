# Copyright (c) mmdetr authors. All rights reserved.
"""Rank-DETR's decoder: queries are sorted by confidence between layers."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import ModuleList
from torch import Tensor, nn

from ...utils.gather import gather_points
from ...utils.precision import apply_in_full_precision
from .deformable_layers import BoxRefinementDecoder
from .query_groups import QueryGroups


class RankDecoder(BoxRefinementDecoder):
    """Decoder whose queries stand in the order of their confidence.

    Source: `Rank-DETR <https://arxiv.org/abs/2310.08854>`_, section 3.2
    (query rank layer). Before each layer but the first, queries, positions
    and references are sorted by the highest class score that the layer
    before gives, each group by itself, and a learned content of the rank is
    merged into every query. For the first layer the rank is the first
    stage's.

    Args:
        sort_queries (bool): Whether to sort. Defaults to True.
        num_ranks (int): How many ranks have a learned content, at least as
            many as there are queries; 0 for sorting alone. Defaults to 0.
        *args, **kwargs: As in :class:`BoxRefinementDecoder`.
    """

    def __init__(
        self,
        *args: Any,
        sort_queries: bool = True,
        num_ranks: int = 0,
        **kwargs: Any,
    ) -> None:
        self.sort_queries = sort_queries
        self.num_ranks = num_ranks
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize decoder layers and, between them, rank layers."""
        super()._init_layers()
        if not self.num_ranks:
            return
        dims, gaps = self.embed_dims, range(self.num_layers - 1)
        self.rank_aware_content_query = ModuleList(
            nn.Embedding(self.num_ranks, dims) for _ in gaps
        )
        self.pre_racq_trans = ModuleList(nn.Linear(dims, dims) for _ in gaps)
        self.post_racq_trans = ModuleList(
            nn.Linear(dims * 2, dims) for _ in gaps
        )

    def hand_over(  # type: ignore[override]  # its detector gives them all
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        *,
        query_groups: QueryGroups | None = None,
        cls_branches: nn.ModuleList,
    ) -> tuple[Tensor, Tensor, Tensor, QueryGroups | None]:
        """Sort the queries by confidence and tell them their rank.

        Each group is sorted by itself, and the rank-adaptive biases have no
        part in the order. Arguments and results are those of
        :class:`BoxRefinementDecoder`.
        """
        if self.sort_queries:
            confidence = _confidence(cls_branches[layer_id], query)
            order = rank_order(confidence, query_groups)
            query, query_pos, reference = (
                gather_points(tensor, order)
                for tensor in (query, query_pos, reference)
            )
        if self.num_ranks:
            query = self._merge_rank_contents(layer_id, query)
        return query, query_pos, reference, query_groups

    def _merge_rank_contents(self, layer_id: int, query: Tensor) -> Tensor:
        """Merge the learned content of each rank into the query there.

        The linear layer on [query, content] is applied to its two halves
        one after the other: contents are the same for all images.
        """
        table = self.rank_aware_content_query[layer_id].weight
        contents = self.pre_racq_trans[layer_id](table[: query.shape[1]])
        merge = self.post_racq_trans[layer_id]
        of_query, of_content = merge.weight.chunk(2, dim=1)
        return F.linear(query, of_query) + F.linear(
            contents, of_content, merge.bias
        )


def _confidence(cls_branch: nn.Module, query: Tensor) -> Tensor:
    """Highest class logit, without gradient and in full precision.

    Half precision would make ties of near ranks. And neither autocast nor
    ``no_grad`` is on: older versions of torch keep the half-precision copy
    of a weight that they make under both, and the head that uses it next
    would not train.

    Args:
        cls_branch (nn.Module): Class head of the layer.
        query (Tensor): Has shape (bs, num_queries, dim).

    Returns:
        Tensor: Has shape (bs, num_queries).
    """
    return (
        apply_in_full_precision(cls_branch, query.detach()).detach().amax(-1)
    )


def rank_order(
    confidence: Tensor, query_groups: QueryGroups | None = None
) -> Tensor:
    """Order queries by confidence, each group within its own place.

    Args:
        confidence (Tensor): Has shape (bs, num_queries).
        query_groups (QueryGroups, optional): By default one group.

    Returns:
        Tensor: Index of the query at each rank, has shape
        (bs, num_queries).
    """
    if query_groups is None:
        return confidence.argsort(1, descending=True)
    places = [query_groups[group.name] for group in query_groups.groups]
    return torch.cat(
        [
            confidence[:, place].argsort(1, descending=True) + place.start
            for place in places
        ],
        dim=1,
    )
