import torch
from mmdet.structures.bbox import bbox_overlaps

from project.models.utils.box_ops import generalized_box_iou, refine_reference


def boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, extent = torch.rand(
        2, count, 2, generator=generator, dtype=torch.float64
    )
    return torch.cat([corner, corner + extent], 1) * 100


def test_equals_mmdet() -> None:
    ours = generalized_box_iou(
        boxes(6, 0)[:, None], boxes(4, 1)[None], eps=1e-6
    )
    theirs = bbox_overlaps(boxes(6, 0), boxes(4, 1), mode='giou', eps=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_empty_boxes_give_no_nan() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    for add_eps in (False, True):
        value = generalized_box_iou(point, point, 1e-6, add_eps=add_eps)
        assert value.isfinite().all()


def test_refinement_in_log_odds() -> None:
    deltas = torch.tensor([[0.0, 1.0, -2.0, 0.5]])
    points = torch.tensor([[0.5, 0.25]])
    expected = torch.tensor(
        [[0.5, 0.475367, 0.119203, 0.622459]]
    )  # sigmoid(delta + logit(point)), sigmoid(delta)
    torch.testing.assert_close(
        refine_reference(deltas, points), expected, rtol=1e-5, atol=0
    )


def test_refinement_clamps_at_eps() -> None:
    boxes = torch.tensor([[0.0, 1.0, 5e-4, 0.5]])
    result = refine_reference(torch.zeros(1, 4), boxes, eps=1e-3)
    expected = torch.tensor([[0.001, 0.999, 0.001, 0.5]])
    torch.testing.assert_close(result, expected, rtol=2e-3, atol=0)
