from collections.abc import Callable

import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from project.models.task_modules import LevelNMSSelector
from project.models.utils.gather import gather_points
from project.utils.errors import UserError
from tests.helpers.waiting_ops import WaitingOps

LEVELS = ((12, 14), (6, 7), (3, 4), (2, 2))
NUM_POINTS = sum(h * w for h, w in LEVELS)


def first_stage(
    batch_size: int = 3, seed: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Objectness, and boxes of which some are near copies of others."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(
            batch_size, NUM_POINTS, *shape, generator=generator
        ).double()

    boxes = rand(4) * 0.3 + 0.3
    source = (rand() * NUM_POINTS).long()
    near = gather_points(boxes, source) + rand(4) * 0.004
    boxes = torch.where(rand(1) < 0.6, near, boxes).logit()
    return rand(), lambda points: gather_points(boxes, points)


def reference(
    scores: Tensor, boxes: Tensor, limit: int, wanted: int
) -> list[int]:
    """The choice for one image, step by step, as the source has it."""
    bounds, start = [], 0
    for height, width in LEVELS:
        bounds.append(range(start, start + height * width))
        start += height * width
    order = scores.argsort(descending=True).tolist()
    boxes = bbox_cxcywh_to_xyxy(boxes.sigmoid()).float().clamp(0, 1)
    candidates = set()
    for level in bounds:
        of_level = torch.zeros_like(scores)
        of_level[level.start : level.stop] = 1
        masked = scores.sigmoid() * of_level
        # Which zeros fill a small level is up to top-k.
        candidates.update(masked.topk(min(limit, len(scores)))[1].tolist())
    survivors = []
    for level in bounds:
        kept = []
        for point in [p for p in order if p in candidates and p in level]:
            if all(iou(boxes[point], boxes[k]) <= 0.9 for k in kept):
                kept.append(point)
        survivors += kept
    survivors.sort(key=order.index)
    if len(survivors) < wanted:
        return order[:wanted]
    marked = set()
    for level in bounds:
        of_level = [p for p in survivors if p in level]
        marked.update(of_level[: wanted // len(LEVELS)])
    for point in survivors:
        if len(marked) < wanted:
            marked.add(point)
    return [p for p in survivors if p in marked]


def iou(a: Tensor, b: Tensor) -> Tensor:
    overlap = (a[2:].minimum(b[2:]) - a[:2].maximum(b[:2])).clamp(min=0)
    areas = [(box[2:] - box[:2]).prod() for box in (a, b)]
    return overlap.prod() / (sum(areas) - overlap.prod())


@pytest.mark.parametrize(
    ('limit', 'wanted'),
    [
        (1000, 40),  # each level has more than its share or less
        (30, 40),  # only the best of a level are looked at
        # The choice reaches points that fill up the lists of small levels.
        (40, 80),
        (50, 100),
        (60, 120),
        (1000, 9),  # a share of 2, and one to spare
        (1000, 140),  # not enough survive in some image
        (1000, NUM_POINTS),
    ],
)
def test_choice_of_each_image(limit: int, wanted: int) -> None:
    scores, boxes_of = first_stage()
    selector = LevelNMSSelector(max_per_level=limit)
    chosen = selector.select(scores, boxes_of, LEVELS, wanted)
    everything = torch.arange(NUM_POINTS).expand(3, -1)
    boxes = boxes_of(everything)
    expected = [
        reference(scores[i], boxes[i], limit, wanted) for i in range(3)
    ]
    assert chosen.tolist() == expected


def test_images_may_differ_in_falling_back() -> None:
    """The largest number of survivors of an image, not of all."""
    scores, boxes_of = first_stage()
    everything = torch.arange(NUM_POINTS).expand(3, -1)
    selector = LevelNMSSelector()
    plain = scores.argsort(1, descending=True)
    agree = {
        wanted: (
            selector.select(scores, boxes_of, LEVELS, wanted)
            == plain[:, :wanted]
        ).all(1)
        for wanted in range(60, NUM_POINTS)
    }
    assert any(0 < found.sum() < 3 for found in agree.values())
    assert boxes_of(everything).shape == (3, NUM_POINTS, 4)


def test_the_host_waits_for_the_suppression_alone() -> None:
    """Which takes all levels at once."""
    scores, boxes_of = first_stage()
    with WaitingOps() as ops:
        LevelNMSSelector().select(scores, boxes_of, LEVELS, 40)
    assert ops.found == ['nms']


def test_fewer_candidates_than_queries() -> None:
    """Where few of each level are looked at the best of all are taken."""
    scores, boxes_of = first_stage()
    selector = LevelNMSSelector(max_per_level=5)
    chosen = selector.select(scores, boxes_of, LEVELS, 30)
    assert chosen.equal(scores.topk(30).indices)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(max_per_level=0), 'max_per_level=0 should be .*, 1 or more'),
        (dict(iou_threshold=90), 'iou_threshold=90 should be an IoU, 0 to 1'),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LevelNMSSelector(**settings)


def test_levels_do_not_suppress_each_other() -> None:
    scores, _ = first_stage(1)
    same = torch.zeros(4).double()
    chosen = LevelNMSSelector().select(
        scores, lambda points: same.expand(*points.shape, 4), LEVELS, 4
    )
    ends = torch.tensor([h * w for h, w in LEVELS]).cumsum(0)
    levels = torch.bucketize(chosen[0], ends, right=True)
    assert sorted(levels.tolist()) == [0, 1, 2, 3]
