import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from project.models.task_modules import HighOrderIoUCost


def test_hand_computed():
    """Two 0.1-boxes that share half: IoU 0.005 / 0.015."""
    preds = InstanceData(
        scores=torch.tensor([[0.0, 4.0], [9.0, 0.0]]),
        bboxes=torch.tensor([[10.0, 20, 20, 40], [50.0, 50, 60, 60]]),
    )
    gts = InstanceData(
        labels=torch.tensor([1, 0]),
        bboxes=torch.tensor([[15.0, 20, 25, 40], [10.0, 20, 20, 40]]),
    )
    cost = TASK_UTILS.build(
        dict(type='mmdet.HighOrderIoUCost', alpha=2.0, eps=1e-3, weight=3.0)
    )
    assert isinstance(cost, HighOrderIoUCost)
    result = cost(preds, gts, dict(img_shape=(200, 100)))
    prob = torch.tensor([4.0, 0.0]).sigmoid()
    expected = torch.zeros(2, 2)
    expected[0, 0] = -3 * prob[0] * (0.005 / 0.016) ** 2
    expected[0, 1] = -3 * prob[1] * (0.01 / 0.011) ** 2
    torch.testing.assert_close(result, expected)
