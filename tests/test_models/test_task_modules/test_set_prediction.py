"""The batched core agrees with the plain formulation and with mmdet."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from mmdet.models.task_modules import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor

from project.models.losses import SetCriterion
from project.models.task_modules import BatchHungarianAssigner
from project.models.task_modules.set_prediction import (
    AssignedByPriors,
    GivenPairs,
    HungarianMatching,
    MatchedPairs,
    PairContext,
    PairTerms,
    PendingMatch,
    Predictions,
    PredictionSet,
    Scoring,
    SetTargets,
    hungarian_assignment,
    pairing,
)
from project.models.task_modules.set_prediction.pairwise_cost import (
    pairwise_cost,
)
from project.models.task_modules.set_prediction.structures import CostInputs
from project.models.utils.broken_matches import broken_come_first
from project.utils.errors import UserError
from project.utils.host_copy import HostCopy
from tests.helpers.waiting_ops import WaitingOps
from tools.analysis_tools.reference.set_prediction import PlainSetPrediction
from tools.analysis_tools.reference.set_prediction_batch import (
    COSTS,
    SetPredictionBatch,
    make_batch,
)


def make_criterion(**settings) -> SetCriterion:
    return SetCriterion(
        FocalLoss(use_sigmoid=True, loss_weight=2.0),
        L1Loss(loss_weight=5.0),
        GIoULoss(loss_weight=2.0),
        **settings,
    )


def plain_results(batch: SetPredictionBatch) -> tuple[dict, list]:
    plain = PlainSetPrediction()
    losses, pairs = {}, []
    for group in batch.groups:
        terms, matched = plain.losses(
            group['scores'],
            batch.boxes(group),
            batch.plain_targets,
            **group['settings'],
        )
        losses.update(terms)
        pairs.append(matched)
    return losses, pairs


def gradients(batch: SetPredictionBatch, losses: dict) -> list:
    return torch.autograd.grad(sum(losses.values()), batch.leaves())


@pytest.mark.parametrize('num_gts', [(7, 4), (0, 5), (20,), (3, 0, 9)])
@pytest.mark.parametrize('prune_from', [10, 4096])
def test_agrees_with_the_plain_formulation(
    num_gts: tuple, prune_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hungarian_assignment, 'MANY_QUERIES', prune_from)
    batch = make_batch(num_gts)
    expected, expected_pairs = plain_results(batch)
    criterion = make_criterion()
    losses = criterion(batch.sets(), batch.targets())

    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-10, atol=1e-10, msg=name
        )
    for ours, theirs in zip(
        gradients(batch, losses), gradients(batch, expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)

    targets = batch.targets()
    matched = PendingMatch(batch.sets(), targets).result()
    for pairs, layers in zip(matched, expected_pairs, strict=True):
        assert as_set(pairs) == plain_as_set(layers, num_gts, targets.offsets)


def as_set(pairs: MatchedPairs) -> Counter:
    columns = (pairs.layer, pairs.image, pairs.query, pairs.target)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return Counter(rows)


def matched_by(
    assigner: BatchHungarianAssigner, batch: SetPredictionBatch
) -> list[Counter]:
    pending = PendingMatch(batch.sets(assigner), batch.targets())
    return [as_set(pairs) for pairs in pending.result()]


def plain_as_set(layers: list, num_gts: tuple, offsets: list) -> Counter:
    return Counter(
        (layer, image, int(query), int(target) % num_gts[image] + offset)
        for layer, images in enumerate(layers)
        for image, (queries, targets) in enumerate(images)
        for offset in [offsets[image]]
        for query, target in zip(queries, targets, strict=True)
    )


def test_more_copies_than_queries() -> None:
    """With too few queries each takes one copy, and the rest go without."""
    batch = make_batch((9, 2), num_queries=(5, 12), num_copies=4)
    expected, _ = plain_results(batch)
    losses = make_criterion()(batch.sets(), batch.targets())
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=0)


def test_batch_without_objects() -> None:
    batch = make_batch((0, 0))
    losses = make_criterion()(batch.sets(), batch.targets())
    for name, value in losses.items():
        if name.endswith('loss_cls'):
            assert value > 0
        else:
            assert value == 0
    for gradient in gradients(batch, losses):
        assert gradient.isfinite().all()


def test_assign_gives_what_mmdet_gives() -> None:
    batch = make_batch((6,), num_layers=1)
    (gts,), (meta,) = batch.instances()
    group = batch.groups[0]
    cxcywh = batch.boxes(group)[0, 0].detach()
    size = torch.tensor([640.0, 480.0, 640.0, 480.0])
    corners = torch.cat(
        [cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2],
        1,
    )
    predictions = InstanceData(
        scores=group['scores'][0, 0].detach(), bboxes=corners * size
    )
    ours = BatchHungarianAssigner(COSTS).assign(predictions, gts, meta)
    theirs = HungarianAssigner(COSTS).assign(predictions, gts, meta)
    assert ours.num_gts == theirs.num_gts == 6
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert torch.equal(ours.labels, theirs.labels)


def test_assign_without_objects() -> None:
    predictions = InstanceData(
        scores=torch.zeros(4, 3), bboxes=torch.ones(4, 4)
    )
    gts = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    result = BatchHungarianAssigner(COSTS).assign(
        predictions, gts, dict(img_shape=(8, 8))
    )
    assert result.gt_inds.tolist() == [0] * 4


@pytest.mark.parametrize(
    'cost',
    [
        dict(type='ClassificationCost', weight=1.5),
        dict(type='BBoxL1Cost', weight=2.0, box_format='xyxy'),
        dict(type='IoUCost', iou_mode='iou', weight=3.0),
        dict(type='FocalLossCost', weight=2.0),
        dict(type='NormalizedGIoUCost', weight=2.0, eps=1e-3),
        dict(type='HighOrderIoUCost', weight=2.0, alpha=3.0),
    ],
)
def test_every_cost_is_the_one_of_its_class(cost: dict) -> None:
    """Whatever the core evaluates itself equals a call of the cost."""
    batch = make_batch((14,), num_layers=2)
    (gts,), (meta,) = batch.instances()
    targets = batch.targets()
    assigner = BatchHungarianAssigner([cost])
    predictions = batch.predictions()[0]
    boxes = predictions.bbox_preds[:, 0]
    size = targets.image_sizes[0]
    found = pairwise_cost(
        assigner.match_costs[0],
        CostInputs(
            prefix='',
            num_layers=2,
            scores=predictions.cls_scores[:, 0].flatten(0, 1),
            boxes=boxes.flatten(0, 1),
            labels=targets.labels,
            gt_boxes=targets.bboxes_normalized,
            image_size=size,
            img_meta=meta,
        ),
    ).unflatten(0, (2, -1))
    corners = torch.cat(
        [
            boxes[..., :2] - boxes[..., 2:] / 2,
            boxes[..., :2] + boxes[..., 2:] / 2,
        ],
        -1,
    )
    for layer in range(2):
        expected = assigner.match_costs[0](
            InstanceData(
                scores=predictions.cls_scores[layer, 0],
                bboxes=corners[layer] * size,
            ),
            gts,
            meta,
        )
        torch.testing.assert_close(found[layer], expected)


@pytest.fixture
def progress() -> Iterator[Callable[..., None]]:
    """Says how far a training has come, as mmengine's hook does."""
    hub = MessageHub.get_current_instance()
    before = dict(hub.runtime_info)

    def say(**info: int) -> None:
        for key, value in info.items():
            hub.update_info(key, value)

    for key in ('iter', 'max_iters'):
        hub.runtime_info.pop(key, None)
    yield say
    hub.runtime_info.clear()
    hub.runtime_info.update(before)


def test_costs_change_late_in_the_training(
    progress: Callable[..., None],
) -> None:
    late = [dict(type='HighOrderIoUCost', alpha=4.0)]
    assigner = BatchHungarianAssigner(COSTS, late_match_costs=late)
    batch = make_batch((6, 9))
    early, changed = (
        matched_by(BatchHungarianAssigner(costs), batch)
        for costs in (COSTS, late)
    )
    assert early != changed

    matched = partial(matched_by, assigner, batch)

    assert matched() == early  # without a Runner
    progress(iter=0, max_iters=90000)
    assert matched() == early
    progress(iter=67499)
    assert matched() == early
    progress(iter=67500)
    assert matched() == changed
    progress(iter=7, max_iters=10)
    assert matched() == early
    progress(iter=8)
    assert matched() == changed


def test_the_change_is_at_a_share_of_the_training() -> None:
    with pytest.raises(UserError, match=r'late_begin=67500 should be a share'):
        BatchHungarianAssigner(COSTS, COSTS, late_begin=67500)


def test_a_set_may_have_a_classification_loss_of_its_own() -> None:
    batch = make_batch((3, 4))
    sets = batch.sets()
    expected = make_criterion()(sets, batch.targets())
    own_loss = FocalLoss(use_sigmoid=True, loss_weight=6.0)
    sets[2] = replace(
        sets[2], scoring=replace(sets[2].scoring, loss_cls=own_loss)
    )
    losses = make_criterion()(sets, batch.targets())
    own = [name for name in losses if 'one2many_loss_cls' in name]
    assert own
    for name, value in losses.items():
        factor = 3 if name in own else 1
        torch.testing.assert_close(value, expected[name] * factor)


def test_copies_may_differ_from_layer_to_layer() -> None:
    batch = make_batch((4, 3))
    each = PredictionSet(
        batch.predictions()[2],
        HungarianMatching(BatchHungarianAssigner(COSTS), [1, 2, 3]),
    )
    (pairs,) = PendingMatch([each], batch.targets()).result()
    assert pairs.counts == [7, 14, 21]
    per_target = Counter(
        zip(pairs.layer.tolist(), pairs.target.tolist(), strict=True)
    )
    assert all(count == layer + 1 for (layer, _), count in per_target.items())


def test_given_pairs_are_not_matched() -> None:
    """Pairs known beforehand, one query in two of them."""
    scores = torch.zeros(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    boxes = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    batch = make_batch((2,), num_classes=3)
    targets = batch.targets()
    targets.labels[:] = 1
    zeros = torch.zeros(2, dtype=torch.long)
    pairs = MatchedPairs(zeros, zeros, zeros, torch.tensor([0, 1]), [2])
    predictions = Predictions(scores, boxes)
    given = PredictionSet(predictions, GivenPairs(pairs))
    losses = make_criterion()([given], targets)
    # Two targets of one class on query 0: one positive logit, two boxes.
    entropy = torch.log(torch.tensor(2.0, dtype=torch.float64)) / 4
    expected = 2 * (0.25 + 11 * 0.75) * entropy / 2
    torch.testing.assert_close(losses['loss_cls'], expected)
    gts = targets.bboxes_normalized
    expected = 5 * (gts - 0.5).abs().sum() / 2
    torch.testing.assert_close(losses['loss_bbox'], expected)


@pytest.mark.parametrize('order', [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_last_target_of_a_query_decides_its_class(
    order: list[int],
) -> None:
    """Whatever the order of its pairs; its box learns from all of them."""
    scores = torch.zeros(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    boxes = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    targets = make_batch((3,), num_classes=3).targets()
    targets.labels[:] = torch.tensor([2, 0, 1])
    zeros = torch.zeros(3, dtype=torch.long)
    # Query 1 has targets 0 and 1, query 3 has target 2.
    query, target = torch.tensor([[1, 0], [1, 1], [3, 2]])[order].T
    pairs = MatchedPairs(zeros, zeros, query, target, [3])
    predictions = Predictions(scores, boxes)
    given = PredictionSet(predictions, GivenPairs(pairs))
    losses = make_criterion()([given], targets)
    losses['loss_cls'].backward()
    positive = (scores.grad < 0).nonzero()[:, 2:].tolist()
    assert positive == [[1, 0], [3, 1]]
    distances = (targets.bboxes_normalized - 0.5).abs().sum()
    torch.testing.assert_close(losses['loss_bbox'], 5 * distances / 3)


def test_a_set_may_have_its_own_assigner() -> None:
    """One that needs nothing but boxes known beforehand."""
    targets = make_batch((2, 1), num_classes=3).targets()
    scores = torch.zeros(2, 2, 4, 3, dtype=torch.float64)
    boxes = torch.full((2, 2, 4, 4), 0.5, dtype=torch.float64)
    given = MatchedPairs(
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.tensor([0, 1, 1] * 2),
        torch.tensor([1, 3, 0] * 2),
        torch.tensor([1, 2, 2] * 2),
        [3, 3],
    )
    asked = []

    class Assigner:
        def choose(self, *args) -> Tensor:
            asked.append(args)
            return torch.tensor([[-1, -1], [1, -1], [3, 0]])

    predictions = Predictions(scores, boxes)
    pairing = AssignedByPriors(Assigner(), boxes[0])
    losses = make_criterion()([PredictionSet(predictions, pairing)], targets)
    ((priors, seen),) = asked
    assert priors is pairing.priors
    assert seen is targets
    expected = make_criterion()(
        [PredictionSet(predictions, GivenPairs(given))], targets
    )
    assert losses == expected


def test_given_pairs_may_be_none_at_all() -> None:
    """As of denoising queries in a batch without objects."""
    batch = make_batch((2,))
    none = torch.zeros(0, dtype=torch.long)
    pairs = MatchedPairs(none, none, none, none, [0, 0, 0])
    given = PredictionSet(batch.predictions()[0], GivenPairs(pairs))
    (result,) = PendingMatch([given], batch.targets()).result()
    assert result is pairs
    losses = make_criterion()([given], batch.targets())
    assert losses['loss_cls'] > 0
    assert losses['loss_bbox'] == 0


class _Spy(FocalLoss):
    """A classification loss that keeps what it is told."""

    def negative(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.flatten(1).sum(1) * 0

    def pair_terms(
        self, scores: torch.Tensor, context: PairContext
    ) -> PairTerms:
        self.context = context
        return PairTerms(scores)


def test_a_classification_loss_knows_its_pairs() -> None:
    batch = make_batch((3, 2))
    spy = _Spy(use_sigmoid=True)
    criterion = SetCriterion(spy, L1Loss(), GIoULoss())
    targets = batch.targets()
    each = batch.sets()[0]
    predictions = each.predictions
    losses = criterion([each], targets)
    pairs = spy.context.pairs
    labels = targets.labels[pairs.target]
    picked = predictions.cls_scores[
        pairs.layer, pairs.image, pairs.query, labels
    ]
    last = pairs.layer == 2
    torch.testing.assert_close(losses['loss_cls'], picked[last].sum() / 5)
    boxes = predictions.bbox_preds[pairs.layer, pairs.image, pairs.query]
    centers = (spy.context.bboxes[:, :2] + spy.context.bboxes[:, 2:]) / 2
    torch.testing.assert_close(centers, boxes[:, :2].detach())
    assert not spy.context.bboxes.requires_grad
    centers = (spy.context.gt_bboxes[:, :2] + spy.context.gt_bboxes[:, 2:]) / 2
    torch.testing.assert_close(
        centers, targets.bboxes_normalized[pairs.target, :2]
    )


def test_normalizer_of_pairs() -> None:
    """mmdet divides by matched pairs, the official code by targets."""
    batch = make_batch((9,), num_queries=(5, 8), num_copies=1)
    by_targets = make_criterion()(batch.sets(), batch.targets())
    by_pairs = make_criterion(normalizer='pairs')(
        batch.sets(), batch.targets()
    )
    torch.testing.assert_close(
        by_pairs['loss_bbox'], by_targets['loss_bbox'] * 9 / 5
    )


def test_a_set_may_have_its_own_normalizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By pairs, and of this rank alone; 9 targets here, none on 2 others."""
    reduce_mean = 'project.models.losses.set_criterion.reduce_mean'
    monkeypatch.setattr(reduce_mean, lambda x: x / 3)
    batch = make_batch((9,), num_queries=(5, 8), num_copies=1)
    shared, *_ = batch.sets()
    own = PredictionSet(
        replace(shared.predictions, prefix='own_'),
        shared.pairing,
        Scoring(normalizer='pairs', sync_normalizer=False),
    )
    losses = make_criterion()([shared, own], batch.targets())
    for name in ('loss_cls', 'loss_bbox', 'loss_iou'):
        torch.testing.assert_close(
            losses[f'own_{name}'], losses[name] * (9 / 3) / 5
        )


def test_the_host_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One synchronisation in a training step's loss: the matching costs."""
    copies = []

    class CountedCopy(HostCopy):
        def wait(self):
            copies.append(self)
            return super().wait()

    monkeypatch.setattr(pairing, 'HostCopy', CountedCopy)
    batch = make_batch((7, 0, 4))
    instances = batch.instances()
    sets = batch.sets()
    with WaitingOps() as ops:
        targets = SetTargets.from_instances(
            *instances, like=batch.groups[0]['scores']
        )
        losses = make_criterion()(sets, targets)
        sum(losses.values()).backward()
    assert ops.found == []
    assert len(copies) == 1


def test_diverged_predictions_are_told() -> None:
    batch = make_batch((3,))
    batch.groups[0]['unact'].data[0, 0, 0] = float('nan')
    with pytest.raises(UserError, match='NaN or infinity'):
        make_criterion()(batch.sets(), batch.targets())


class _Forbids(BaseMatchCost):
    def __call__(self, pred_instances, gt_instances, img_meta=None, **kwargs):
        cost = pred_instances.scores[:, gt_instances.labels]
        return cost.masked_fill(cost < 0, torch.inf)


def test_pairs_that_a_cost_forbids_stay_unmatched_in_training() -> None:
    """There what is no number is matched first, but not these."""
    assigner = BatchHungarianAssigner([dict(type=_Forbids)])
    gts = InstanceData(bboxes=torch.rand(1, 4), labels=torch.zeros(1).long())
    for scores, matched in (
        ([-1.0, 5.0, 3.0], [0, 0, 1]),
        ([-1.0, 5.0, torch.nan], [0, 0, 1]),
    ):
        found = InstanceData(
            bboxes=torch.rand(3, 4), scores=torch.tensor(scores)[:, None]
        )
        with broken_come_first():
            result = assigner.assign(found, gts, dict(img_shape=(8, 8)))
        assert result.gt_inds.tolist() == matched


def test_unknown_normalizer() -> None:
    with pytest.raises(
        UserError, match="should be one of 'targets', 'objects', 'pairs'"
    ):
        make_criterion(normalizer='queries')


def test_unsupported_classification_loss() -> None:
    with pytest.raises(UserError, match="'L1Loss' cannot be used"):
        SetCriterion(L1Loss(), L1Loss(), GIoULoss())


def test_half_precision_is_matched_in_float32() -> None:
    batch = make_batch((5, 3), dtype=torch.float32)
    sets = [
        replace(
            each,
            predictions=replace(
                each.predictions,
                cls_scores=each.predictions.cls_scores.bfloat16(),
                bbox_preds=each.predictions.bbox_preds.bfloat16(),
            ),
        )
        for each in batch.sets()
    ]
    losses = make_criterion()(sets, batch.targets())
    for value in losses.values():
        assert value.dtype == torch.float32
        assert value.isfinite()
