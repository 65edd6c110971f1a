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
    """Decoder that sorts its queries by confidence between layers.

    Source: `Rank-DETR <https://arxiv.org/abs/2310.08854>`_, section 3.2
    (query rank layer). Before each layer but the first, queries, positions
    and references of each group are sorted by the highest class score of the
    layer before, and a learned content of the rank is merged into every
    query. In the first layer the order is that of the first stage.

    Args:
        sort_queries (bool): Whether to sort. Defaults to True.
        num_ranks (int): Number of ranks with a learned content, at least the
            number of queries; 0 to only sort. Defaults to 0.
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
        """Sort each group of queries and merge the contents of the ranks.

        The rank-adaptive biases have no influence on the order. Arguments
        and results are those of :class:`BoxRefinementDecoder`.
        """
        order = self.order_after(layer_id, query, query_groups, cls_branches)
        if order is not None:
            query, query_pos, reference = (
                gather_points(tensor, order)
                for tensor in (query, query_pos, reference)
            )
        if self.num_ranks:
            query = self._merge_rank_contents(layer_id, query)
        return query, query_pos, reference, query_groups

    def order_after(
        self,
        layer_id: int,
        query: Tensor,
        query_groups: QueryGroups | None,
        cls_branches: nn.ModuleList,
    ) -> Tensor | None:
        """Order in which the queries enter the next layer.

        Arguments are those of :meth:`hand_over`.

        Returns:
            Tensor | None: As of :func:`rank_order`; None if they are not
            sorted.
        """
        if not self.sort_queries:
            return None
        # In full precision, since half precision makes ties. Without
        # autocast and no_grad: under both, older versions of torch cache
        # a half-precision copy of the weight that the head would use.
        logits = apply_in_full_precision(
            cls_branches[layer_id], query.detach()
        )
        return rank_order(logits.detach().amax(-1), query_groups)

    def _merge_rank_contents(self, layer_id: int, query: Tensor) -> Tensor:
        """Merge the learned content of each rank into the query.

        The linear layer on [query, content] is split into its two halves, as
        the contents are the same for all images.
        """
        table = self.rank_aware_content_query[layer_id].weight
        contents = self.pre_racq_trans[layer_id](table[: query.shape[1]])
        merge = self.post_racq_trans[layer_id]
        of_query, of_content = merge.weight.chunk(2, dim=1)
        return F.linear(query, of_query) + F.linear(
            contents, of_content, merge.bias
        )


def rank_order(
    confidence: Tensor, query_groups: QueryGroups | None = None
) -> Tensor:
    """Sort the queries of each group by confidence.

    Args:
        confidence (Tensor): Has shape (bs, num_queries).
        query_groups (QueryGroups, optional): Defaults to one group.

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
