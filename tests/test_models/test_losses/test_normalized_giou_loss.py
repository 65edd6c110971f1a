import torch
from mmengine.structures import InstanceData

from project.models.losses import NormalizedGIoULoss
from project.models.task_modules import NormalizedGIoUCost


def test_hand_computed() -> None:
    """Two 0.1-boxes that share half: union 0.015, enclosing 0.015."""
    pred = torch.tensor([[0.1, 0.1, 0.2, 0.2]], dtype=torch.float64)
    target = torch.tensor([[0.15, 0.1, 0.25, 0.2]], dtype=torch.float64)
    loss = NormalizedGIoULoss(eps=1e-3, loss_weight=2.0, reduction='sum')
    expected = 2 * (1 - 0.005 / 0.016)
    assert abs(loss(pred, target).item() - expected) < 1e-12
    cost = NormalizedGIoUCost(eps=1e-3, weight=3.0)
    value = cost(
        InstanceData(bboxes=pred * 200),
        InstanceData(bboxes=target * 200),
        dict(img_shape=(200, 200)),
    ).item()
    assert abs(value + 3 * 0.005 / 0.016) < 1e-12


def test_reductions() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.8]])
    shifted = boxes + 0.05
    loss = NormalizedGIoULoss(eps=0.0)
    each = loss(boxes, shifted, reduction_override='none')
    assert each.shape == (2,)
    torch.testing.assert_close(loss(boxes, shifted), each.mean())
    weight = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(
        loss(boxes, shifted, weight, avg_factor=4), each[0] / 4
    )
