# Copyright (c) mmdetr authors. All rights reserved.
"""Assignment of several queries to each target."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from project.utils.errors import UserError

# When exchanges are faster than repeated targets: number of copies, total of
# copies, and the ratio of this total to the queries.
_COPIES = 3
_COPIES_OF_ALL = 400
_CLOSE_TO_QUERIES = (0.7, 1.2)
# Owners that share the unmatched queries; a single one could exchange only
# one such query at a time.
_IDLE_OWNERS = 8
# Bellman-Ford steps; more do not save time.
_PRICE_STEPS = 3


def match_copies(
    cost: np.ndarray, num_copies: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest assignment of queries to targets, each repeated.

    Args:
        cost (ndarray): Has shape (num_gts, num_queries).
        num_copies (int): Copies of each target; some are left unmatched if
            there are too few queries.

    Returns:
        tuple[ndarray, ndarray]: Queries and targets, each has shape
        (num_pairs, ), sorted by query.

    Raises:
        UserError: If a cost is NaN, or infinite costs leave no assignment.
    """
    num_gts, num_queries = cost.shape
    total = num_gts * num_copies
    low, high = (share * num_queries for share in _CLOSE_TO_QUERIES)
    is_large = num_copies >= _COPIES and total >= _COPIES_OF_ALL
    if is_large and low <= total <= high and np.isfinite(cost).all():
        return exchange_copies(cost, num_copies)
    try:
        rows, query = linear_sum_assignment(np.tile(cost, (num_copies, 1)))
    except ValueError as error:
        raise UserError(
            'The matching cost holds NaN or infinity: the predictions have '
            'diverged, or a ground-truth box or label is not a number; lower '
            'the learning rate or check the annotations'
        ) from error
    order = query.argsort()
    return query[order], rows[order] % num_gts


def exchange_copies(
    cost: np.ndarray, num_copies: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the assignment of :func:`match_copies` by exchanges.

    Args:
        cost (ndarray): Finite, has shape (num_gts, num_queries).
        num_copies (int): As there.

    Returns:
        tuple[ndarray, ndarray]: As there.
    """
    owner = _Exchange(cost.astype(np.float64), num_copies).solve()
    query = np.flatnonzero(owner < len(cost))
    return query, owner[query]


class _Exchange:
    """An assignment that is improved by exchanges until it is optimal.

    Copies of a target are equal, so queries have an owner, the target,
    instead of a row in a matrix ``num_copies`` times as large. Owners
    exchange queries along cycles. The cycles that reduce the cost most are
    the solution of an assignment problem between owners; if there are none,
    the assignment is optimal (M. Klein, "A primal method for minimal cost
    flows", 1967).

    Unmatched queries belong to idle owners. If there are too few queries,
    the unmatched copies own slots of cost zero.

    Args:
        cost (ndarray): Finite float64, has shape (num_gts, num_queries).
        num_copies (int): Number of queries of each target.
    """

    def __init__(self, cost: np.ndarray, num_copies: int) -> None:
        num_gts, num_queries = cost.shape
        surplus = num_queries - num_gts * num_copies
        self._num_queries = num_queries
        self._num_owners = num_gts + min(max(surplus, 0), _IDLE_OWNERS)
        num_columns = num_queries + max(-surplus, 0)
        # Cost of each column for each owner, has shape (columns, owners).
        self._cost = np.zeros((num_columns, self._num_owners))
        self._cost[:num_queries, :num_gts] = cost.T
        self._owner = self._begin(cost, num_copies)
        self._tolerance = 1e-12 * np.abs(cost).max()

    def solve(self) -> np.ndarray:
        """Exchange as long as this reduces the cost.

        Returns:
            ndarray: Owner of each query; indices beyond the targets are
            idle. Has shape (num_queries, ).
        """
        offers = np.empty((self._num_owners, self._num_owners))
        is_changed = np.ones(self._num_owners, dtype=bool)
        price = np.zeros(self._num_owners)
        while True:
            self._update(offers, is_changed)
            # Prices do not change the sum over a cycle but speed up scipy;
            # those of the step before are nearly optimal.
            for _ in range(_PRICE_STEPS):
                price = np.minimum(price, (offers + price[:, None]).min(0))
            giver, taker = linear_sum_assignment(
                offers + price[:, None] - price
            )
            if offers[giver, taker].sum() >= -self._tolerance:
                return self._owner[: self._num_queries]
            is_changed = giver != taker
            self._hand_over(taker, is_changed)

    def _begin(self, cost: np.ndarray, num_copies: int) -> np.ndarray:
        """Initial assignment: optimal for one copy after the other."""
        num_gts, num_queries = cost.shape
        owner = np.empty(len(self._cost), dtype=np.int64)
        free = np.arange(num_queries)
        count = np.zeros(num_gts, dtype=np.int64)
        for _ in range(num_copies):
            rows, column = linear_sum_assignment(cost[:, free])
            owner[free[column]] = rows
            count[rows] += 1
            free = np.delete(free, column)
        # Distribute the cheap unmatched queries over the idle owners.
        free = free[cost[:, free].min(0).argsort()]
        idle = max(self._num_owners - num_gts, 1)
        owner[free] = num_gts + np.arange(len(free)) % idle
        owner[num_queries:] = np.repeat(np.arange(num_gts), num_copies - count)
        return owner

    def _update(self, offers: np.ndarray, is_changed: np.ndarray) -> None:
        """Update the lowest cost at which one owner takes from another.

        Args:
            offers (ndarray): Costs from giver (row) to taker (column), has
                shape (owners, owners); rows of changed owners are set.
            is_changed (ndarray): Whether an owner has new columns.
        """
        columns = np.flatnonzero(is_changed[self._owner])
        columns = columns[self._owner[columns].argsort(kind='stable')]
        giver = self._owner[columns]
        first = np.flatnonzero(np.diff(giver, prepend=-1))
        change = self._cost[columns]
        change -= change[np.arange(len(columns)), giver][:, None]
        offers[giver[first]] = np.minimum.reduceat(change, first, axis=0)

    def _hand_over(self, taker: np.ndarray, is_changed: np.ndarray) -> None:
        """Move from each giver the query that is cheapest for its taker."""
        columns = np.flatnonzero(is_changed[self._owner])
        giver = self._owner[columns]
        taker = taker[giver]
        change = self._cost[columns, taker] - self._cost[columns, giver]
        order = np.lexsort((change, giver))
        first = order[np.flatnonzero(np.diff(giver[order], prepend=-1))]
        self._owner[columns[first]] = taker[first]
