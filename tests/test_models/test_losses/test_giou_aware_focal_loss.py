import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from mmdet.registry import MODELS

from project.models.losses import (
    GIoUAwareFocalLoss,
    SetCriterion,
    SparseFocalLoss,
)
from project.models.task_modules.set_prediction import PairContext
from project.models.utils.box_ops import generalized_box_iou
from tools.analysis_tools.reference.set_prediction_batch import make_batch

BOXES = torch.tensor(
    [[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.6, 0.9], [0.0, 0.0, 0.1, 0.1]]
).double()
TRUTH = torch.tensor(
    [[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.6, 0.9], [0.8, 0.8, 0.9, 0.9]]
).double()


def dense_formula(scores, labels, quality, alpha, gamma):
    """The paper's sum with the code's balance, over one-hot targets."""
    one_hot = F.one_hot(labels, scores.shape[1] + 1)[:, :-1].double()
    target = one_hot * quality[:, None]
    prob = scores.sigmoid()
    balance = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    bce = F.binary_cross_entropy(prob, target, reduction='none')
    return (balance * (target - prob).abs() ** gamma * bce).sum()


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 4, generator=generator).double() * 2
    return scores.requires_grad_()


@pytest.mark.parametrize('gamma', [2.0, 1.5])
def test_both_forms_are_the_formula(scores, gamma):
    labels = torch.tensor([4, 2, 0, 4, 3])  # 4: no object
    giou = generalized_box_iou(BOXES, TRUTH, 1e-6, add_eps=True)
    quality = torch.zeros(5).double()
    quality[[1, 2, 4]] = (giou + 1) / 2
    loss = GIoUAwareFocalLoss(alpha=0.3, gamma=gamma, loss_weight=1.7)
    expected = 1.7 * dense_formula(scores, labels, quality, 0.3, gamma)

    sparse = loss.negative(scores[None, None]).sum()
    matched = scores[[1, 2, 4], labels[[1, 2, 4]]]
    context = PairContext(None, BOXES, TRUTH, torch.ones(3, 4), 3)
    sparse = sparse + loss.pair_terms(matched, context).correction.sum()
    dense = loss(scores, (labels, quality), reduction_override='sum')

    gradient = torch.autograd.grad(expected, scores)
    for value in (sparse, dense):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(value, scores),
            gradient,
            rtol=1e-10,
            atol=1e-14,
        )


def test_a_perfect_box_is_asked_for_as_by_the_focal_loss(scores):
    context = PairContext(None, TRUTH, TRUTH, torch.ones(3, 4), 3)
    matched = scores[:3, 0]
    focal = SparseFocalLoss(FocalLoss(loss_weight=2.0))
    ours = GIoUAwareFocalLoss(eps=0.0, loss_weight=2.0)
    torch.testing.assert_close(
        ours.pair_terms(matched, context).correction,
        focal.pair_terms(matched, context).correction,
    )


def test_the_form_of_mmdet_is_averaged(scores):
    labels = torch.tensor([0, 1, 2, 3, 4])
    quality = torch.full((5,), 0.7, dtype=torch.float64)
    loss = MODELS.build(dict(type='mmdet.GIoUAwareFocalLoss'))
    total = loss(scores, (labels, quality), avg_factor=4)
    expected = dense_formula(scores, labels, quality, 0.25, 2.0) / 4
    torch.testing.assert_close(total, expected)


def test_softmax_is_refused():
    with pytest.raises(ValueError, match='use_sigmoid=False should be True'):
        GIoUAwareFocalLoss(use_sigmoid=False)


def test_takes_the_settings_of_the_focal_loss():
    """A config changes the type alone."""
    settings = dict(use_sigmoid=True, gamma=1.5, alpha=0.3, loss_weight=3.0)
    focal, ours = FocalLoss(**settings), GIoUAwareFocalLoss(**settings)
    for name in settings:
        assert getattr(focal, name) == getattr(ours, name)


def test_quality_is_a_constant_to_the_boxes():
    """The classification loss trains scores alone."""
    batch = make_batch((3, 4))
    criterion = SetCriterion(GIoUAwareFocalLoss(), L1Loss(), GIoULoss())
    losses = criterion(batch.sets(), batch.targets())
    classification = sum(v for k, v in losses.items() if 'loss_cls' in k)
    gradients = torch.autograd.grad(
        classification, batch.leaves(), allow_unused=True
    )
    reached = [g is not None and bool(g.any()) for g in gradients]
    everything = torch.autograd.grad(
        sum(criterion(batch.sets(), batch.targets()).values()), batch.leaves()
    )
    assert all(gradient.any() for gradient in everything)
    assert sum(reached) == len(batch.groups)  # the scores of each
