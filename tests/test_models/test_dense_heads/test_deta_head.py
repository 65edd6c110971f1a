from contextlib import nullcontext

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import toy_model_config

R50 = 'deta/deta_r50_5scale_8xb2-12e_coco.py'
METAS = [
    dict(img_shape=(100, 200), scale_factor=(1.0, 1.0)),
    dict(img_shape=(80, 60), scale_factor=(0.5, 0.5)),
]


def build_head(
    num_classes: int = 5, train_cfg: dict | None = None, **test_cfg
) -> nn.Module:
    model = toy_model_config(R50)
    config = model.bbox_head
    config.update(
        num_classes=num_classes,
        as_two_stage=True,
        num_pred_layer=3,
        train_cfg=model.train_cfg,
        test_cfg=model.test_cfg,
    )
    config = Config(dict(head=config))
    config.merge_from_dict(
        dict(head=dict(train_cfg=train_cfg or {}, test_cfg=test_cfg))
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config.head)


def outputs(num_classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits, and boxes that are near one of three and may leave the image."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    places = torch.tensor(
        [[0.2, 0.2, 0.5, 0.4], [0.6, 0.5, 0.3, 0.8], [0.9, 0.8, 0.4, 0.2]]
    )
    boxes = places[(rand(2, 60) * 3).long()] + rand(2, 60, 4) * 0.06
    return rand(2, 60, num_classes) * 4 - 2, boxes


def greedy(scores: Tensor, boxes: Tensor, num: int) -> list[tuple[int, int]]:
    """Query and class of each detection, one after another."""
    num_classes = scores.shape[1]
    corners = bbox_cxcywh_to_xyxy(boxes)
    iou = bbox_overlaps(corners, corners)
    kept = []
    for index in scores.flatten().argsort(descending=True).tolist():
        query, label = divmod(index, num_classes)
        same = [q for q, other in kept if other == label]
        if all(iou[query, q] <= 0.7 for q in same):
            kept.append((query, label))
    return kept[:num]


@pytest.mark.parametrize('num', [7, 30, 300])
@pytest.mark.parametrize('num_classes', [1, 5])
def test_better_detections_of_a_class_suppress_others(
    num: int, num_classes: int
) -> None:
    head = build_head(num_classes, max_per_img=num)
    scores, boxes = outputs(num_classes)
    results = head.predict_by_feat(scores, boxes, METAS)
    for image, found in enumerate(results):
        expected = greedy(scores[image], boxes[image], num)
        queries, labels = torch.tensor(expected).T
        assert len(expected) < scores[image].numel()
        assert found.labels.equal(labels)
        assert found.scores.equal(scores[image, queries, labels].sigmoid())
        height, width = METAS[image]['img_shape']
        scale = METAS[image]['scale_factor'][0]
        corners = bbox_cxcywh_to_xyxy(boxes[image, queries]).clamp(0, 1)
        size = torch.tensor([width, height] * 2) / scale
        torch.testing.assert_close(found.bboxes, corners * size)


def test_only_the_best_pairs_are_looked_at() -> None:
    head = build_head(nms_pre=4)
    scores, boxes = outputs()
    for image, found in enumerate(head.predict_by_feat(scores, boxes, METAS)):
        best = scores[image].sigmoid().flatten().topk(4).values
        assert set(found.scores.tolist()) <= set(best.tolist())


def test_boxes_are_suppressed_before_they_are_clipped() -> None:
    """Two boxes that are one inside the image."""
    head = build_head(1)
    boxes = torch.tensor([[[0.0, 0.5, 0.4, 0.4], [-0.2, 0.5, 0.8, 0.4]]])
    scores = torch.zeros(1, 2, 1)
    (found,) = head.predict_by_feat(scores, boxes, METAS[:1])
    inside = torch.tensor([[0.0, 30, 40, 70]]).expand(2, -1)
    torch.testing.assert_close(found.bboxes, inside)


def test_without_suppression_it_is_any_head() -> None:
    head = build_head(nms=None, max_per_img=300)
    (found, _) = head.predict_by_feat(*outputs(), METAS)
    assert len(found) == 300


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (
            dict(
                train_cfg=dict(
                    first_stage_assigner=dict(
                        _delete_=True,
                        type='MaxIoUAssigner',
                        pos_iou_thr=1,
                        neg_iou_thr=0,
                    )
                )
            ),
            "first_stage_assigner.type='MaxIoUAssigner' gives no pairs",
        ),
        (
            dict(nms=dict(type='soft_nms')),
            "nms.type='soft_nms' should be 'nms'",
        ),
        (
            dict(nms=dict(iou_thr=0.5)),
            "nms takes no 'iou_thr'; it takes iou_threshold",
        ),
        (dict(nms=dict(iou_threshold=7)), 'iou_threshold=7 should be an IoU'),
        (dict(nms_pre=0), 'nms_pre=0 should be .* 1 or more'),
        (dict(nms=dict(iou_threshold=0.5)), None),
    ],
)
def test_settings(settings: dict, sentence: str | None) -> None:
    refusal = pytest.raises(UserError, match=sentence) if sentence else None
    with refusal or nullcontext():
        build_head(**settings)
