"""DDQ's dense loss against mmdet's own."""

import pytest
import torch
from mmdet.models.losses import DDQAuxLoss, FocalLoss, GIoULoss, L1Loss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.registry import DefaultScope

from project.models.dense_heads.hpr_ddq_detr_head import DensePredictions
from project.models.losses import SetCriterion
from project.models.losses.dense_quality_loss import DenseQualityLoss
from project.models.task_modules import MixedHungarianAssigner
from project.models.task_modules.set_prediction import (
    HungarianMatching,
    PredictionSet,
    Scoring,
)
from tools.analysis_tools.reference.set_prediction_batch import make_batch

COSTS = [
    dict(type='ProbabilityFocalCost', weight=2.0),
    dict(type='BBoxL1Cost', weight=5.0),
    dict(type='IoUCost', iou_mode='giou', weight=2.0),
]


@pytest.mark.parametrize('num_gts', [(4, 7), (0, 3), (15, 1), (0, 0)])
def test_losses_are_those_of_mmdet(num_gts: tuple[int, int]) -> None:
    """Of each image; one without objects has none."""
    batch = make_batch(
        num_gts, num_layers=2, num_queries=(40, 1), dtype=torch.float32
    )
    targets, (first, *_) = batch.targets(), batch.predictions()
    scores, boxes = (
        x.detach().requires_grad_()
        for x in (first.cls_scores, first.bbox_preds)
    )
    dense = PredictionSet(
        DensePredictions(scores, boxes, 'dense_'),
        HungarianMatching(MixedHungarianAssigner(COSTS), num_copies=4),
        Scoring(
            loss_cls=DenseQualityLoss(),
            loss_iou=GIoULoss(loss_weight=2.0),
            normalizer='weights',
            per_image=True,
            skip_empty=True,
        ),
    )
    ours = SetCriterion(FocalLoss(), L1Loss(), GIoULoss())([dense], targets)
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = DDQAuxLoss(
            train_cfg=dict(
                assigner=dict(type='TopkHungarianAssigner', topk=4),
                alpha=1,
                beta=6,
            )
        )
    instances, metas = batch.instances()
    for layer in range(2):
        sizes = targets.image_sizes[:, None]
        expected = theirs.loss(
            scores[layer].sigmoid(),
            bbox_cxcywh_to_xyxy(boxes[layer]) * sizes,
            [instance.bboxes for instance in instances],
            [instance.labels for instance in instances],
            metas,
        )
        for name, values in expected.items():
            mine = ours.pop(f'{layer}_aux_{name}')
            assert len(mine) == 2
            for got, wanted in zip(mine, values, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
            total = sum(mine), sum(values)
            grads = [
                torch.autograd.grad(x, scores, retain_graph=True)[0]
                if 'cls' in name
                else torch.autograd.grad(x, boxes, retain_graph=True)[0]
                for x in total
            ]
            torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)
    assert not ours
