"""Targets that are matched several times, against repeating them."""

import os

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from project.models.task_modules.set_prediction.hungarian_assignment import (
    CostBlock,
    PendingAssignment,
)
from project.models.task_modules.set_prediction.transport import (
    exchange_copies,
    match_copies,
)
from project.utils.errors import UserError


@pytest.fixture
def never_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError('the targets were repeated')

    monkeypatch.setattr(np, 'tile', fail)


def repeated(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of the matrix with every target several times."""
    rows, query = linear_sum_assignment(np.concatenate([cost] * copies))
    order = query.argsort()
    return query[order], rows[order] % len(cost)


def detection_cost(
    num_gts: int, num_queries: int, seed: int = 0
) -> np.ndarray:
    """Distances of points, half of them in a crowd."""
    rng = np.random.default_rng(seed)
    targets, queries = rng.random((num_gts, 2)), rng.random((num_queries, 2))
    targets[::2] = 0.4 + 0.2 * targets[::2]
    distance = np.linalg.norm(targets[:, None] - queries, axis=-1)
    return (distance + rng.random(num_queries) / 4).astype(np.float32)


@pytest.mark.parametrize(
    ('num_gts', 'num_queries', 'copies'),
    [
        (1, 1, 1),
        (1, 5, 3),
        (5, 3, 2),  # fewer queries than targets
        (7, 40, 4),
        (10, 61, 6),  # one query is left over
        (10, 60, 6),
        (10, 59, 6),  # one is missing
        (20, 61, 6),
        (40, 250, 5),
    ],
)
def test_finds_the_only_cheapest_assignment(num_gts, num_queries, copies):
    for seed in range(5):
        cost = detection_cost(num_gts, num_queries, seed)
        query, target = exchange_copies(cost, copies)
        expected = repeated(cost, copies)
        np.testing.assert_array_equal(query, expected[0])
        np.testing.assert_array_equal(target, expected[1])


@pytest.mark.parametrize('scale', [0, 1, 1e-9, 1e9])
def test_ties_cost_the_same(scale):
    rng = np.random.default_rng(0)
    for num_queries in (20, 55, 90):
        cost = rng.integers(-2, 3, (12, num_queries)) * float(scale)
        query, target = exchange_copies(cost, 5)
        assert len(np.unique(query)) == min(num_queries, 60)
        assert np.bincount(target).max() <= 5
        best = repeated(cost, 5)
        assert cost[target, query].sum() == pytest.approx(
            cost[best[1], best[0]].sum(), rel=1e-12
        )


@pytest.mark.usefixtures('never_repeats')
def test_many_boxes_are_matched_by_exchanges():
    cost = detection_cost(200, 1500)
    query, target = match_copies(cost, 6)
    expected = repeated(cost, 6)
    np.testing.assert_array_equal(query, expected[0])
    np.testing.assert_array_equal(target, expected[1])


def test_a_forbidden_pair_is_left_out():
    """Exchanges, by which so many boxes are matched, need finite costs."""
    cost = detection_cost(100, 500)
    cost[0, :400] = np.inf
    query, target = match_copies(cost, 4)
    assert (query[target == 0] >= 400).all()
    assert np.bincount(target).tolist() == [4] * 100


def test_a_cost_that_is_no_number_is_told():
    cost = detection_cost(100, 500)
    cost[2, 3] = np.nan
    with pytest.raises(UserError, match='holds NaN'):
        match_copies(cost, 4)


def test_layers_and_images_are_matched_side_by_side(monkeypatch):
    """In any number of threads, to the same pairs."""
    blocks = [
        CostBlock(
            image=image,
            first_target=10 * image,
            copies=[1, 6, 6],
            cost=torch.from_numpy(
                np.stack([detection_cost(10, 300, seed) for seed in range(3)])
            ),
        )
        for image in range(3)
    ]
    arrays = [block.cost.numpy() for block in blocks]
    tables = []
    for cores in (1, 4):
        monkeypatch.setattr(
            os, 'sched_getaffinity', lambda pid, n=cores: range(n)
        )
        tables.append(PendingAssignment(blocks).solve(arrays))
    np.testing.assert_array_equal(*tables)
    expected = [
        (layer, image, query, target + 10 * image)
        for image in range(3)
        for layer, copies in enumerate([1, 6, 6])
        for query, target in zip(
            *repeated(arrays[image][layer], copies), strict=True
        )
    ]
    np.testing.assert_array_equal(tables[0].T, expected)
