# Copyright (c) mmdetr authors. All rights reserved.
"""Hungarian matching on the host."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from ...utils.host_threads import run_in_threads
from .transport import match_copies

MANY_QUERIES = 4096
"""From this number on, only queries that can be matched go to the host."""
# From this number of pairs on, threads save time.
_MANY_PAIRS = 300


@dataclass(frozen=True)
class CostBlock:
    """Matching costs of one image, in all layers.

    Args:
        image (int): Index of the image.
        first_target (int): Index of its first target in the batch.
        copies (Sequence[int]): Copies of each target, for each layer.
        cost (Tensor): Has shape (num_layers, num_gts, num_columns).
        queries (Tensor, optional): Query of each column, possibly repeated,
            has shape (num_layers, num_columns). By default columns are
            queries.
        has_out (bool): Whether some queries are excluded by infinite costs.
            Defaults to False.
    """

    image: int
    first_target: int
    copies: Sequence[int]
    cost: Tensor
    queries: Tensor | None = None
    has_out: bool = False

    def pruned(self) -> 'CostBlock':
        """Keep the queries that an optimal assignment can use.

        Each target needs at most its ``num_gts * copies`` cheapest queries: of
        these at least one would be free and cheaper than any other query.
        """
        _, num_gts, num_queries = self.cost.shape
        num_useful = num_gts * max(self.copies)
        is_small = num_queries < MANY_QUERIES
        if is_small or num_gts * num_useful >= num_queries:
            return self
        cheapest = self.cost.topk(num_useful, largest=False, sorted=False)
        queries = cheapest.indices.flatten(1)
        index = queries[:, None].expand(-1, num_gts, -1)
        return replace(self, cost=self.cost.gather(2, index), queries=queries)

    def tensors(self) -> list[Tensor]:
        """Tensors that the host needs."""
        return [t for t in (self.cost, self.queries) if t is not None]

    def solve(
        self, layer: int, cost: np.ndarray, queries: np.ndarray | None = None
    ) -> np.ndarray:
        """Match a layer, given :meth:`tensors` on the host.

        Returns:
            ndarray: Layers, images, queries and targets, has shape
            (4, num_pairs).
        """
        columns, layer_cost = None, cost[layer]
        if queries is not None:
            columns, first = np.unique(queries[layer], return_index=True)
            layer_cost = layer_cost[:, first]
        if self.has_out:
            takes_part = ~np.isposinf(layer_cost).all(0)
            layer_cost = layer_cost[:, takes_part]
            if columns is None:
                columns = np.arange(len(takes_part))
            columns = columns[takes_part]
        query, target = match_copies(layer_cost, self.copies[layer])
        pairs = np.empty((4, len(query)), dtype=np.int64)
        pairs[0], pairs[1] = layer, self.image
        pairs[2] = query if columns is None else columns[query]
        pairs[3] = target + self.first_target
        return pairs


@dataclass(frozen=True)
class PendingAssignment:
    """Matching costs of one set of predictions.

    Args:
        blocks (Sequence[CostBlock]): One for each image with targets.
    """

    blocks: Sequence[CostBlock]

    @property
    def tensors(self) -> list[Tensor]:
        """list[Tensor]: Tensors that the host needs."""
        return [tensor for block in self.blocks for tensor in block.tensors()]

    def solve(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Match all layers and images.

        Args:
            arrays (Sequence[ndarray]): :attr:`tensors` on the host.

        Returns:
            ndarray: Layers, images, queries and targets, has shape
            (4, num_pairs).

        Raises:
            UserError: If a cost is NaN.
        """
        remaining = iter(arrays)
        problems, num_pairs = [], 0
        for block in self.blocks:
            parts = [next(remaining) for _ in block.tensors()]
            num_pairs += block.cost.shape[1] * sum(block.copies)
            problems += [
                partial(block.solve, layer, *parts)
                for layer in range(len(block.copies))
            ]
        if num_pairs < _MANY_PAIRS:
            tables = [solve() for solve in problems]
        else:
            tables = run_in_threads(problems)
        return np.concatenate([np.empty((4, 0), dtype=np.int64), *tables], 1)
