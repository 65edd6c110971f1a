"""Distinct boxes of all images at once against mmcv, image by image."""

import pytest
import torch
from mmcv.ops import batched_nms
from torch import Tensor

from project.models.utils.distinct_boxes import (
    best_distinct_boxes,
    distinct_boxes,
)

NUM_IMAGES = 11


def crowd(num_boxes: int, spread: float) -> tuple[Tensor, Tensor]:
    """Boxes around a few places, and scores some of which are equal."""
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_IMAGES, num_boxes, 1)
    places = torch.rand(NUM_IMAGES, 8, 4, generator=generator) * 0.5 + 0.2
    which = torch.randint(8, shape, generator=generator)
    boxes = places.gather(1, which.expand(-1, -1, 4))
    boxes += spread * torch.randn(boxes.shape, generator=generator)
    boxes = boxes.clamp(0.01, 0.99)
    center, size = boxes.split(2, -1)
    scores = torch.rand(shape[:2], generator=generator)
    scores = (scores * num_boxes).round() / num_boxes
    return torch.cat([center - size / 2, center + size / 2], -1), scores


def expected(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of one image, as mmdet's DDQ finds them."""
    ids = torch.ones(len(boxes))
    settings = dict(type='nms', iou_threshold=iou_threshold)
    return batched_nms(boxes, scores, ids, settings)[1]


def test_distinct_boxes() -> None:
    boxes, scores = crowd(300, 0.02)
    stays = distinct_boxes(boxes, scores, 0.7)
    for image in range(NUM_IMAGES):
        kept = expected(boxes[image], scores[image], 0.7)
        assert 10 < len(kept) < 100
        assert stays[image].nonzero()[:, 0].equal(kept.sort().values)


def test_distinct_among_candidates() -> None:
    boxes, scores = crowd(300, 0.02)
    scores += torch.linspace(0, 1e-4, scores.shape[1])  # no ties
    generator = torch.Generator().manual_seed(1)
    candidates = torch.rand(scores.shape, generator=generator) < 0.5
    candidates[0] = False
    candidates[0, 7] = True
    stays = distinct_boxes(boxes, scores, 0.7, candidates)
    for image in range(NUM_IMAGES):
        (which,) = candidates[image].nonzero(as_tuple=True)
        kept = expected(boxes[image, which], scores[image, which], 0.7)
        found = stays[image].nonzero()[:, 0]
        assert found.equal(which[kept].sort().values)


@pytest.mark.parametrize(
    ('num_boxes', 'spread', 'num_wanted'),
    [
        (300, 0.05, 20),  # the first look is enough
        (2000, 0.002, 8),  # it is not
        (300, 0.001, 100),  # there are not so many
        (10, 0.02, 20),
    ],
)
def test_best_distinct_boxes(
    num_boxes: int, spread: float, num_wanted: int
) -> None:
    boxes, scores = crowd(num_boxes, spread)
    indices, is_filler = best_distinct_boxes(boxes, scores, num_wanted, 0.7)
    assert indices.shape == is_filler.shape == (NUM_IMAGES, num_wanted)
    for image in range(NUM_IMAGES):
        kept = expected(boxes[image], scores[image], 0.7)[:num_wanted]
        assert indices[image, : len(kept)].equal(kept)
        assert not is_filler[image, : len(kept)].any()
        assert is_filler[image, len(kept) :].all()
