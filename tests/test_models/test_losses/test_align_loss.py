"""Align-DETR's losses against loops over ground truths."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import GIoULoss, L1Loss
from mmdet.models.task_modules import HungarianAssigner
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from project.models.losses import AlignLoss, SetCriterion
from project.models.losses.align_loss import ranks_within
from project.models.task_modules import MixedHungarianAssigner
from project.models.task_modules.set_prediction import (
    HungarianMatching,
    Predictions,
    PredictionSet,
    SetTargets,
)
from tools.analysis_tools.reference.set_prediction_batch import (
    COSTS,
    make_batch,
)

REPEATS = [2, 1]


def plain_layer(
    scores: Tensor, boxes: Tensor, targets: SetTargets, repeats: int
) -> dict[str, Tensor]:
    """One layer, image by image and ground truth by ground truth."""
    sums = dict(loss_cls=0.0, loss_bbox=0.0, loss_iou=0.0)
    costs = HungarianAssigner(COSTS).match_costs  # mmdet's own
    for image, count in enumerate(targets.counts):
        of_image = targets.of_image(image)
        gts, labels = (
            targets.bboxes_normalized[of_image],
            targets.labels[of_image],
        )
        size = targets.image_sizes[image]
        logits, preds = scores[image], boxes[image]
        prob = logits.sigmoid()
        target, weight = torch.zeros_like(prob), prob**2
        if count:
            found = InstanceData(
                scores=logits, bboxes=bbox_cxcywh_to_xyxy(preds) * size
            )
            objects = InstanceData(
                labels=labels, bboxes=bbox_cxcywh_to_xyxy(gts) * size
            )
            meta = targets.img_metas[image]
            cost = sum(each(found, objects, meta) for each in costs).detach()
            k = max(1, min(repeats, len(preds) // count))
            rows, columns = linear_sum_assignment(np.tile(cost, (1, k)))
            matched = torch.from_numpy(columns % count)
            for gt in range(count):
                queries = torch.from_numpy(rows)[matched == gt]
                iou = bbox_overlaps(
                    bbox_cxcywh_to_xyxy(preds[queries]) * size,
                    (bbox_cxcywh_to_xyxy(gts[gt]) * size)[None],
                ).detach()[:, 0]
                quality = prob[queries, labels[gt]].detach() ** 0.25
                quality = (quality * iou**0.75).clamp(min=0.01)
                order = quality.argsort(descending=True)
                for rank, place in enumerate(order.tolist()):
                    query, share = queries[place], math.exp(-rank / 1.5)
                    target[query, labels[gt]] = quality[place] * share
                    weight = weight.clone()
                    weight[query, labels[gt]] = 1
                    pair = preds[query][None], gts[gt][None]
                    corners = (bbox_cxcywh_to_xyxy(b) * size for b in pair)
                    sums['loss_bbox'] += share * L1Loss(
                        reduction='sum', loss_weight=5.0
                    )(*pair)
                    sums['loss_iou'] += share * GIoULoss(
                        reduction='sum', loss_weight=2.0
                    )(*corners)
        bce = F.binary_cross_entropy_with_logits(
            logits, target, reduction='none'
        )
        sums['loss_cls'] += (weight * bce).sum()
    divisor = max(len(targets), 1)
    return {name: value / divisor for name, value in sums.items()}


@pytest.mark.parametrize('num_gts', [(4, 7), (0, 3), (25, 1), (0, 0)])
def test_losses_equal_a_loop_over_ground_truths(num_gts) -> None:
    """Also with more objects than half the queries, and with none."""
    batch = make_batch(num_gts, num_layers=2, num_queries=(40, 1))
    targets, (first, *_) = batch.targets(), batch.predictions()
    scores, boxes = (
        x.detach().requires_grad_()
        for x in (first.cls_scores, first.bbox_preds)
    )
    criterion = SetCriterion(
        AlignLoss(),
        L1Loss(loss_weight=5.0),
        GIoULoss(loss_weight=2.0),
        normalizer='objects',
    )
    matching = HungarianMatching(MixedHungarianAssigner(COSTS), REPEATS)
    ours = criterion(
        [PredictionSet(Predictions(scores, boxes), matching)], targets
    )
    expected = {}
    for layer, repeats in enumerate(REPEATS):
        plain = plain_layer(scores[layer], boxes[layer], targets, repeats)
        stage = '' if layer else 'd0.'
        expected.update({f'{stage}{n}': v for n, v in plain.items()})
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            ours[name], torch.as_tensor(value, dtype=ours[name].dtype)
        )
    grads = [
        torch.autograd.grad(
            sum(losses.values()), (scores, boxes), allow_unused=True
        )
        for losses in (ours, expected)
    ]
    for got, wanted in zip(*grads, strict=True):
        if wanted is None:
            assert (got == 0).all()
        else:
            torch.testing.assert_close(got, wanted)


def test_equal_weights_without_tau() -> None:
    batch = make_batch((3, 2), num_layers=1)
    each = PredictionSet(
        batch.predictions()[0],
        HungarianMatching(MixedHungarianAssigner(COSTS), 2),
    )
    equal, almost, ranked = (
        SetCriterion(loss, L1Loss(), GIoULoss())([each], batch.targets())
        for loss in (
            AlignLoss().without_ranks(),
            AlignLoss(tau=1e9),
            AlignLoss(),
        )
    )
    torch.testing.assert_close(equal, almost)
    assert ranked['loss_bbox'] < equal['loss_bbox']


def test_ranks() -> None:
    group = torch.tensor([1, 0, 1, 1, 0])
    values = torch.tensor([0.2, 0.5, 0.9, 0.2, 0.7])
    assert ranks_within(group, values).tolist() == [1, 1, 0, 2, 0]
    assert ranks_within(group[:0], values[:0]).tolist() == []
