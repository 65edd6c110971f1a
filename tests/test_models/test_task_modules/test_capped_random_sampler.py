import torch
from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData

from project.models.task_modules import CappedRandomSampler
from tests.helpers.waiting_ops import WaitingOps


def test_few_positives_are_all_kept() -> None:
    positive = torch.zeros(100, dtype=torch.bool)
    positive[::10] = True
    kept = CappedRandomSampler(num=20).keep_positives(positive)
    assert kept.equal(positive)


def test_of_many_positives_each_is_as_likely() -> None:
    torch.manual_seed(0)
    sampler = CappedRandomSampler(pos_fraction=0.25)
    positive = torch.arange(40) >= 20
    total = torch.zeros(40)
    for _ in range(400):
        kept = sampler.keep_positives(positive)
        assert kept.sum() == 10
        total += kept
    assert not total[:20].any()
    assert (total[20:] > 150).all()
    assert (total[20:] < 250).all()


def test_the_smallest_keys_are_kept() -> None:
    sampler = CappedRandomSampler(num=4)
    sampler.random_keys = lambda count, _: torch.arange(0.0, count).flip(0)
    kept = sampler.keep_positives(torch.tensor([True] * 4 + [False]))
    assert kept.tolist() == [False, False, True, True, False]


def test_a_sample_may_be_larger_than_there_are_boxes() -> None:
    positive = torch.tensor([True, True, False])
    kept = CappedRandomSampler(num=256).keep_positives(positive)
    assert kept.equal(positive)


def test_a_sample_may_have_no_positives() -> None:
    positive = torch.tensor([True, True, True])
    assert (
        not CappedRandomSampler(pos_fraction=0.25)
        .keep_positives(positive)
        .any()
    )


def test_the_host_does_not_wait() -> None:
    positive = torch.ones(9, dtype=torch.bool)
    with WaitingOps() as ops:
        CappedRandomSampler().keep_positives(positive)
    assert ops.found == []


def test_mmdets_heads_can_sample_with_it() -> None:
    gt_inds = torch.tensor([1] * 6 + [0] * 14)
    boxes = torch.rand(20, 4)
    for num in (None, 20):
        sampler = CappedRandomSampler(
            num, pos_fraction=0.25, add_gt_as_proposals=False
        )
        sample = sampler.sample(
            AssignResult(1, gt_inds, torch.zeros(20), gt_inds - 1),
            InstanceData(priors=boxes),
            InstanceData(bboxes=boxes[:1], labels=torch.tensor([0])),
        )
        assert len(sample.pos_inds) == 5
        assert (sample.pos_inds < 6).all()
        assert len(sample.neg_inds) == 14
