import numpy as np
import pytest

from project.evaluation import RankQuality

GT_BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], dtype=np.float32)
GT_LABELS = np.array([1, 0])


def scores(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_hits_and_duplicates_by_rank() -> None:
    boxes = np.array(
        [
            [0, 0, 10, 9],  # rank 2: the first object again
            [0, 0, 10, 10],  # rank 1: the first object
            [20, 20, 40, 40],  # rank 4: the second, but of its class
            [20, 20, 40, 39],  # rank 3: the second, of another class
            [70, 70, 80, 80],  # rank 5: nothing
        ],
        dtype=np.float32,
    )
    quality = RankQuality(max_rank=6)
    quality.add(
        scores((0.1, 0.8), (0, 0.9), (0.6, 0), (0.2, 0.7), (0.1, 0)),
        boxes,
        GT_BOXES,
        GT_LABELS,
    )
    hits, duplicates = [1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1]
    ranks = np.arange(1, 7)
    np.testing.assert_allclose(quality.precision(), hits / ranks)
    np.testing.assert_allclose(quality.duplicates(), np.divide(duplicates, 2))
    best = np.minimum(ranks, 2) / ranks
    np.testing.assert_allclose(quality.best_precision(), best)
    assert quality.at_object_count() == (0.5, 0.5)


def test_a_query_claims_the_object_it_overlaps_most() -> None:
    gts = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], dtype=np.float32)
    boxes = gts[[1, 1, 0]]
    quality = RankQuality(max_rank=3)
    quality.add(
        scores((0.9, 0), (0.8, 0), (0.7, 0)), boxes, gts, np.zeros(2, int)
    )
    # The second takes the other object, so the third comes too late.
    np.testing.assert_allclose(quality.precision() * [1, 2, 3], [1, 2, 2])
    np.testing.assert_allclose(quality.duplicates(), [0, 0, 0.5])


def test_correlation_is_one_where_the_orders_agree() -> None:
    boxes = np.array([[0, 0, 10, h] for h in (10, 8, 6, 3)], dtype=np.float32)
    order = scores((0.9, 0), (0.8, 0), (0.7, 0), (0.1, 0))
    quality = RankQuality()
    quality.add(order, boxes, GT_BOXES, GT_LABELS)
    assert quality.correlation == pytest.approx(1)
    assert quality.close_correlation == pytest.approx(1)
    upside_down = RankQuality()
    upside_down.add(order[::-1], boxes, GT_BOXES, GT_LABELS)
    assert upside_down.correlation == pytest.approx(-1)
    both = RankQuality()
    both.add(order, boxes, GT_BOXES, GT_LABELS)
    both.add(order[::-1], boxes, GT_BOXES, GT_LABELS)
    assert both.correlation == pytest.approx(0)


def test_hits_are_compared_across_images() -> None:
    """Each image has one hit; a duplicate of a high IoU does not count."""
    quality = RankQuality()
    for score, height in ((0.9, 10), (0.8, 8), (0.7, 6)):
        boxes = np.array(
            [[0, 0, 10, height], [0, 0, 10, 10]], dtype=np.float32
        )
        quality.add(scores((0, score), (0, 0.1)), boxes, GT_BOXES, GT_LABELS)
    assert quality.hit_correlation == pytest.approx(1)
    assert quality.close_correlation != pytest.approx(1)


def test_few_close_queries_have_no_correlation() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], dtype=np.float32)
    quality = RankQuality()
    quality.add(scores((0.9, 0), (0.1, 0)), boxes, GT_BOXES, GT_LABELS)
    assert np.isnan(quality.close_correlation)


def test_images_without_objects_do_not_count() -> None:
    quality = RankQuality()
    boxes = np.zeros((0, 4), dtype=np.float32)
    quality.add(scores((0.9, 0)), GT_BOXES[:1], boxes, np.zeros(0, int))
    assert quality.num_images == 0
