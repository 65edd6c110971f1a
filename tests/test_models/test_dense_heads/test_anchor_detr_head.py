import pytest
import torch
from mmdet.models.layers import inverse_sigmoid
from mmengine.registry import DefaultScope

from project.models.dense_heads import AnchorDETRHead
from project.models.layers.stage_outputs import DecoderOutput


@pytest.fixture
def head() -> AnchorDETRHead:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = AnchorDETRHead(
            num_classes=5,
            embed_dims=8,
            num_pred_layer=3,
            inverse_sigmoid_eps=1e-3,
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            train_cfg=None,
        )
    return head.double()


def test_one_head_for_all_layers(head: AnchorDETRHead) -> None:
    assert len(head.cls_branches) == len(head.reg_branches) == 3
    assert len(set(head.cls_branches)) == len(set(head.reg_branches)) == 1


def test_layers_predict_from_the_same_points(head: AnchorDETRHead) -> None:
    states = torch.randn(3, 2, 4, 8, dtype=torch.float64)
    points = torch.rand(2, 4, 2, dtype=torch.float64) * 1.4 - 0.2
    cls_scores, boxes = head(DecoderOutput(states, [points] * 3))
    assert cls_scores.shape == (3, 2, 4, 5)
    for layer in range(3):
        torch.testing.assert_close(
            cls_scores[layer], head.cls_branches[layer](states[layer])
        )
        raw = head.reg_branches[layer](states[layer])
        raw[..., :2] += inverse_sigmoid(points, eps=1e-3)
        torch.testing.assert_close(boxes[layer], raw.sigmoid())
