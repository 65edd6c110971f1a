import pytest
import torch
from torch import Tensor

from project.models.utils.nms import nms_in_groups
from project.ops import suppression
from project.ops.suppression import survivors


def random_boxes(count: int, seed: int = 0, spread: float = 0.03) -> Tensor:
    """Boxes in [0, 1] around a few places, so that many overlap."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    places = rand(6, 4) * 0.4 + 0.2
    boxes = places[(rand(count) * 6).long()]
    boxes = boxes + (rand(count, 4) - 0.5) * spread
    centers, sizes = boxes.chunk(2, 1)
    return torch.cat([centers - sizes / 2, centers + sizes / 2], 1).clamp(0, 1)


def greedy(boxes: Tensor, groups: Tensor, threshold: float) -> list[bool]:
    """One box after another, in the arithmetic of the boxes."""
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    kept = [True] * len(boxes)
    for i in range(len(boxes)):
        width = right.minimum(right[i]) - left.maximum(left[i])
        height = bottom.minimum(bottom[i]) - top.maximum(top[i])
        overlap = width.clamp(min=0) * height.clamp(min=0)
        iou = overlap / (areas[i] + areas - overlap)
        hit = (iou > threshold) & (groups == groups[i])
        if kept[i]:
            for j in range(i + 1, len(boxes)):
                kept[j] = kept[j] and not hit[j]
    return kept


@pytest.mark.parametrize('num_groups', [1, 3, 10, 80])
def test_greedy_within_each_group(num_groups: int) -> None:
    boxes = random_boxes(400)
    groups = torch.arange(400) % num_groups
    (kept,) = nms_in_groups(boxes[None], groups[None], num_groups, 0.8)
    assert kept.tolist() == greedy(boxes, groups, 0.8)
    assert 0 < kept.sum() < 400


def test_the_first_groups_lose_no_precision() -> None:
    """Thresholds at the very IoU of two boxes, which must not pass it."""
    boxes = random_boxes(40, seed=1)
    # Sixteen groups of pairs in nine and more cells; ask for the first four.
    for i in range(0, 40, 2):
        pair = boxes[i : i + 2]
        width, height = (pair[:, 2:].amin(0) - pair[:, :2].amax(0)).clamp(
            min=0
        )
        overlap = width * height
        areas = (pair[:, 2] - pair[:, 0]) * (pair[:, 3] - pair[:, 1])
        iou = overlap / (areas[0] + areas[1] - overlap)
        if not 0 < iou < 1:
            continue
        below = torch.nextafter(iou, torch.tensor(0.0)).item()
        for group in range(4):
            inputs = pair[None], torch.full((1, 2), group), 16
            assert nms_in_groups(*inputs, iou.item()).all()
            (kept,) = nms_in_groups(*inputs, below)
            assert kept.tolist() == [True, False]


def test_boxes_without_area_stay() -> None:
    boxes = torch.full((1, 3, 4), 0.5)
    assert nms_in_groups(boxes, torch.zeros(1, 3).long(), 1, 0.5).all()


def test_equal_boxes_leave_the_first() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]] * 9, dtype=torch.float64)
    groups = torch.tensor([0, 1, 2] * 3)
    (kept,) = nms_in_groups(boxes[None], groups[None], 3, 0.9)
    assert kept.tolist() == [True] * 3 + [False] * 6


def test_no_boxes() -> None:
    kept = nms_in_groups(
        torch.zeros(2, 0, 4), torch.zeros(2, 0).long(), 5, 0.9
    )
    assert kept.shape == (2, 0)


@pytest.mark.parametrize(
    ('num_boxes', 'num_images'), [(10, 80), (300, 27), (5000, 1), (0, 80)]
)
def test_a_call_has_no_more_boxes_than_memory_allows(
    num_boxes: int, num_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the op grows with the square of its boxes, here 8192."""
    calls = []

    def op(boxes: Tensor, scores: Tensor, iou_threshold: float) -> tuple:
        calls.append(len(boxes))
        return boxes, torch.empty(0, dtype=torch.long, device=boxes.device)

    monkeypatch.setattr(suppression, 'nms', op)
    boxes = torch.empty(99, num_boxes, 4, device='meta')
    marks = suppression._kernel(boxes, 0.7, True, None)
    assert marks.shape == survivors(boxes, 0.7).shape == (99, num_boxes)
    full, rest = divmod(99, num_images)
    assert calls == [num_images * num_boxes] * full + [rest * num_boxes] * (
        rest > 0
    )


@pytest.mark.parametrize(('spread', 'max_kept'), [(0.2, 7), (0.01, 30)])
def test_the_best_survivors_are_found_early(
    spread: float, max_kept: int
) -> None:
    """The first boxes have enough of them, or too few."""
    boxes = random_boxes(6 * 500, spread=spread).view(6, -1, 4)
    stays = survivors(boxes, 0.7)
    early = survivors(boxes, 0.7, max_kept=max_kept)
    for image in range(6):
        (places,) = stays[image].nonzero(as_tuple=True)
        (found,) = early[image].nonzero(as_tuple=True)
        assert found[:max_kept].equal(places[:max_kept])
        assert len(places) >= 2


def test_images_do_not_suppress_each_other() -> None:
    boxes = random_boxes(500, spread=0.2).expand(3, -1, -1)
    groups = (torch.arange(500) % 3).expand(3, -1)
    by_image = nms_in_groups(boxes, groups, 3, 0.7)
    assert by_image[0].tolist() == greedy(boxes[0], groups[0], 0.7)
    assert by_image[0].equal(by_image[1])
    assert by_image[0].equal(by_image[2])


def test_it_is_one_operator_of_a_graph() -> None:
    def suppress(boxes: Tensor) -> Tensor:
        return survivors(boxes, 0.7)

    compiled = torch.compile(suppress, backend='eager', fullgraph=True)
    for count in (40, 70):
        boxes = random_boxes(count, spread=0.2)[None]
        assert compiled(boxes).equal(suppress(boxes))
    inputs = boxes, 0.7, False, None
    torch.library.opcheck(torch.ops.mmdetr.nms.default, inputs)
