# Copyright (c) mmdetr authors. All rights reserved.
"""Assignments of the lowest cost, found on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from project.utils.errors import UserError

# From this many queries on only those that a match can use go to the host.
_MANY_QUERIES = 4096


@dataclass(frozen=True)
class CostBlock:
    """Matching costs of one image, in all layers.

    Args:
        image (int): Which image.
        first_target (int): Its first target among those of all images.
        copies (Sequence[int]): Copies of each target, for each layer.
        cost (Tensor): Has shape (num_layers, num_gts, num_columns).
        queries (Tensor, optional): Query of each column, may repeat, has
            shape (num_layers, num_columns). By default columns are queries.
        has_out (bool): Whether some queries take no part, whose cost is
            infinite. Defaults to False.
    """

    image: int
    first_target: int
    copies: Sequence[int]
    cost: Tensor
    queries: Tensor | None = None
    has_out: bool = False

    def pruned(self) -> 'CostBlock':
        """Keep the queries that an optimal assignment can use.

        Each target needs at most its ``num_gts * copies`` cheapest queries:
        were it matched to another, one of these would be free and cheaper.
        """
        _, num_gts, num_queries = self.cost.shape
        num_useful = num_gts * max(self.copies)
        is_small = num_queries < _MANY_QUERIES
        if is_small or num_gts * num_useful >= num_queries:
            return self
        cheapest = self.cost.topk(num_useful, largest=False, sorted=False)
        queries = cheapest.indices.flatten(1)
        index = queries[:, None].expand(-1, num_gts, -1)
        return replace(self, cost=self.cost.gather(2, index), queries=queries)

    def tensors(self) -> list[Tensor]:
        """What has to travel to the host."""
        return (
            [self.cost] if self.queries is None else [self.cost, self.queries]
        )

    def solve(
        self, cost: np.ndarray, queries: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Match each layer, given :meth:`tensors` on the host.

        Yields:
            ndarray: Rows of layer, image, query and target, has shape
            (4, num_pairs).
        """
        for layer, num_copies in enumerate(self.copies):
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
            query, target = _solve(layer_cost, num_copies)
            pairs = np.empty((4, len(query)), dtype=np.int64)
            pairs[0], pairs[1] = layer, self.image
            pairs[2] = query if columns is None else columns[query]
            pairs[3] = target + self.first_target
            yield pairs


@dataclass(frozen=True)
class PendingAssignment:
    """Matching costs of one set of predictions.

    Args:
        blocks (Sequence[CostBlock]): Of each image with targets.
    """

    blocks: Sequence[CostBlock]

    @property
    def tensors(self) -> list[Tensor]:
        """list[Tensor]: What has to travel to the host."""
        return [tensor for block in self.blocks for tensor in block.tensors()]

    def solve(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Match all layers and images.

        Args:
            arrays (Sequence[ndarray]): :attr:`tensors` on the host.

        Returns:
            ndarray: Rows of layer, image, query and target, has shape
            (4, num_pairs).

        Raises:
            UserError: If a cost is not a number.
        """
        remaining = iter(arrays)
        tables = [
            table
            for block in self.blocks
            for table in block.solve(
                *(next(remaining) for _ in block.tensors())
            )
        ]
        return np.concatenate([np.empty((4, 0), dtype=np.int64), *tables], 1)


def _solve(cost: np.ndarray, num_copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest assignment of queries to targets, each repeated.

    Args:
        cost (ndarray): Has shape (num_gts, num_queries).
        num_copies (int): How often each target is to be matched.

    Returns:
        tuple[ndarray, ndarray]: Queries and targets, each has shape
        (num_pairs, ), sorted by query.

    Raises:
        UserError: If a cost is not a number.
    """
    try:
        rows, query = linear_sum_assignment(np.tile(cost, (num_copies, 1)))
    except ValueError as error:
        raise UserError(
            'The matching cost holds NaN or infinity: the predictions have '
            'diverged, or a ground-truth box or label is not a number; lower '
            'the learning rate or check the annotations'
        ) from error
    order = query.argsort()
    return query[order], rows[order] % len(cost)
