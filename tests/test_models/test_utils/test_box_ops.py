import torch
from mmdet.structures.bbox import bbox_overlaps

from project.models.utils.box_ops import generalized_box_iou


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
