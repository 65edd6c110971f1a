"""Both published forms of the denoising loss, against plain formulas."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import project.models.losses.set_criterion as set_criterion
from project.models.dense_heads import DenoisingHead
from project.models.layers.dn_query_generator import DNQueryGenerator
from project.models.task_modules.set_prediction import SetTargets
from project.models.utils.box_ops import generalized_box_iou
from tests.helpers.toy import toy_batch

NUM_LAYERS, NUM_CLASSES, NUM_GROUPS = 2, 6, 3
WEIGHTS = dict(loss_cls=1.0, loss_bbox=5.0, loss_iou=2.0)


def build_head(**settings) -> DenoisingHead:
    return DenoisingHead(
        num_classes=NUM_CLASSES,
        embed_dims=8,
        num_pred_layer=NUM_LAYERS,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='NormalizedGIoULoss', loss_weight=2.0),
        train_cfg=dict(
            assigner=dict(
                type='BatchHungarianAssigner',
                match_costs=[dict(type='BBoxL1Cost', weight=5.0)],
            )
        ),
        **settings,
    )


def predictions(num_gts: tuple[int, ...]) -> tuple:
    """Targets, denoising queries, and outputs of these and 4 others."""
    generator = torch.Generator().manual_seed(0)
    _, samples = toy_batch(
        ((60, 90),) * len(num_gts), num_gts, num_classes=NUM_CLASSES
    )
    targets = SetTargets.from_instances(
        [sample.gt_instances for sample in samples],
        [sample.metainfo for sample in samples],
        like=torch.zeros(1, dtype=torch.float64),
    )
    denoising = DNQueryGenerator(
        NUM_CLASSES, 8, group_cfg=dict(num_groups=NUM_GROUPS)
    )(targets.labels, targets.bboxes_normalized, targets.counts)
    shape = NUM_LAYERS, len(num_gts), denoising.num_queries + 4
    scores = torch.randn(*shape, NUM_CLASSES, generator=generator).double()
    boxes = torch.rand(*shape, 4, generator=generator).double()
    return targets, denoising, scores.requires_grad_(), boxes.requires_grad_()


def plain_losses(
    targets: SetTargets,
    scores: Tensor,
    boxes: Tensor,
    on_fillers: bool,
    divisor: float,
) -> dict[str, Tensor]:
    """Query by query, for the outputs of one layer."""
    size = max(targets.counts)
    losses = dict.fromkeys(WEIGHTS, scores.new_zeros(()))
    for image, count in enumerate(targets.counts):
        of_image = targets.of_image(image)
        for place in range(NUM_GROUPS * size):
            one_hot = torch.zeros(NUM_CLASSES, dtype=scores.dtype)
            index = place % size
            if index >= count and not on_fillers:
                continue
            if index < count:
                label = targets.labels[of_image][index]
                target = targets.bboxes_normalized[of_image][index]
                box = boxes[image, place]
                one_hot[label] = 1
                losses['loss_bbox'] = (
                    losses['loss_bbox'] + (box - target).abs().sum()
                )
                corners = [
                    torch.cat([b[:2] - b[2:] / 2, b[:2] + b[2:] / 2])
                    for b in (box, target)
                ]
                giou = generalized_box_iou(*corners, 1e-6, add_eps=True)
                losses['loss_iou'] = losses['loss_iou'] + 1 - giou
            logits = scores[image, place]
            prob = logits.sigmoid()
            alpha = 0.25 * one_hot + 0.75 * (1 - one_hot)
            gap = (one_hot - prob).abs() ** 2
            entropy = F.binary_cross_entropy_with_logits(
                logits, one_hot, reduction='none'
            )
            losses['loss_cls'] = (
                losses['loss_cls'] + (alpha * gap * entropy).sum()
            )
    return {name: WEIGHTS[name] * x / divisor for name, x in losses.items()}


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 2)])
@pytest.mark.parametrize('on_fillers', [False, True])
@pytest.mark.parametrize('synced', [False, True])
def test_denoising_losses(
    num_gts: tuple[int, ...], on_fillers: bool, synced: bool
) -> None:
    """On two ranks, of which the other has no object."""
    head = build_head(dn_loss_on_fillers=on_fillers, sync_dn_avg_factor=synced)
    targets, denoising, scores, boxes = predictions(num_gts)
    sets = head.prediction_sets(scores, boxes, denoising=denoising)
    matched, noised = (each.predictions for each in sets)
    assert (matched.prefix, noised.prefix) == ('', 'dn_')
    assert matched.num_queries == 4
    with mock.patch.object(
        set_criterion, 'reduce_mean', lambda numbers: numbers / 2
    ):
        losses = head.criterion(sets, targets)
    total = sum(num_gts)
    divisor = NUM_GROUPS * (max(total / 2, 1) if synced else total)
    for layer, stage in enumerate(('d0.', '')):
        expected = plain_losses(
            targets, scores[layer], boxes[layer], on_fillers, divisor
        )
        for name, value in expected.items():
            torch.testing.assert_close(losses[f'{stage}dn_{name}'], value)
    of_noised = [value for name, value in losses.items() if 'dn_' in name]
    (gradient,) = torch.autograd.grad(sum(of_noised), scores)
    assert gradient.isfinite().all()
    touched = (gradient != 0).any(-1)[0]
    assert not touched[:, -4:].any()
    is_filler = denoising.is_filler
    assert (touched[:, :-4] == (on_fillers | ~is_filler)).all()


@pytest.mark.parametrize('synced', [False, True])
def test_fewer_targets_than_ranks_count_as_one(synced: bool) -> None:
    """detrex: at least one target, times the groups."""
    head = build_head(sync_dn_avg_factor=synced)
    targets, denoising, scores, boxes = predictions((1,))
    sets = head.prediction_sets(scores, boxes, denoising=denoising)
    with mock.patch.object(
        set_criterion, 'reduce_mean', lambda numbers: numbers / 8
    ):
        losses = head.criterion(sets, targets)
    expected = plain_losses(targets, scores[1], boxes[1], False, NUM_GROUPS)
    for name, value in expected.items():
        torch.testing.assert_close(losses[f'dn_{name}'], value)


@pytest.mark.parametrize('on_fillers', [False, True])
def test_without_objects_all_losses_are_there(on_fillers: bool) -> None:
    """Their names must agree between ranks."""
    head = build_head(dn_loss_on_fillers=on_fillers)
    targets, denoising, scores, boxes = predictions((0, 0))
    losses = head.criterion(
        head.prediction_sets(scores, boxes, denoising=denoising), targets
    )
    names = {f'{s}dn_{name}' for s in ('', 'd0.') for name in WEIGHTS}
    assert names < losses.keys()
    assert all(losses[name] == 0 for name in names)


def test_evaluation_has_no_denoising() -> None:
    head = build_head()
    _, _, scores, boxes = predictions((2,))
    (only,) = head.prediction_sets(scores, boxes)
    assert only.predictions.num_queries == scores.shape[2]
