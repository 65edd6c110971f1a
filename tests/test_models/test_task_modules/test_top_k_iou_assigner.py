import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from project.models.task_modules import TopKIoUAssigner
from project.models.task_modules.set_prediction import (
    AssignedByPriors,
    MatchedPairs,
    PendingMatch,
    Predictions,
    PredictionSet,
    SetTargets,
)
from project.utils.errors import UserError
from tests.helpers.waiting_ops import WaitingOps, on_device

SAMPLER = dict(type='CappedRandomSampler', pos_fraction=0.25)


def targets_of(*boxes: list) -> SetTargets:
    """Ground truth (x1, y1, x2, y2) in percent of each image."""
    instances = [
        InstanceData(
            bboxes=torch.tensor(b, dtype=torch.float64).reshape(-1, 4),
            labels=torch.arange(len(b)),
        )
        for b in boxes
    ]
    metas = [dict(img_shape=(100, 100))] * len(boxes)
    like = torch.zeros(1, dtype=torch.float64)
    return SetTargets.from_instances(instances, metas, like)


def columns(*lefts: int, width: int = 10) -> Tensor:
    """Boxes as high as the image, by their left edges in percent."""
    boxes = [[(left + width / 2) / 100, 0.5, width / 100, 1] for left in lefts]
    return torch.tensor([boxes], dtype=torch.float64)


def column(left: int, width: int = 10) -> list[int]:
    return [left, 0, left + width, 100]


def pairs_of(
    assigner: TopKIoUAssigner,
    priors: Tensor,
    targets: SetTargets,
    num_layers: int = 1,
) -> MatchedPairs:
    """Pairs of predictions that the priors stand for."""
    boxes = priors.expand(num_layers, -1, -1, -1)
    each = PredictionSet(
        Predictions(boxes, boxes), AssignedByPriors(assigner, priors)
    )
    (pairs,) = PendingMatch([each], targets).result()
    return pairs


def found(assigner: TopKIoUAssigner, priors: Tensor, *gts: list) -> list:
    pairs = pairs_of(assigner, priors, targets_of(*gts))
    rows = (pairs.image, pairs.query, pairs.target)
    return list(zip(*(row.tolist() for row in rows), strict=True))


def test_positives_by_falling_iou() -> None:
    """Of boxes 0 to 4 percent beside it those up to IoU 7/13 are positive."""
    priors = columns(24, 21, 20, 23, 22)
    assigner = TopKIoUAssigner(pos_iou_thr=0.5, num_per_gt=9)
    pairs = found(assigner, priors, [column(20)])
    assert pairs == [(0, 2, 0), (0, 1, 0), (0, 4, 0), (0, 3, 0)]
    assigner.num_per_gt = 2
    assert found(assigner, priors, [column(20)]) == pairs[:2]
    assigner = TopKIoUAssigner(pos_iou_thr=0.95)
    assert found(assigner, priors[:, [0, 1]], [column(20)]) == [(0, 1, 0)]


def test_the_best_box_is_positive_whatever_its_iou() -> None:
    priors = columns(28, 29, 50)
    assigner = TopKIoUAssigner(pos_iou_thr=0.9)
    assert found(assigner, priors, [column(20)]) == [(0, 0, 0)]


def test_a_low_best_box_counts_for_whom_it_overlaps_most() -> None:
    """The second target's only box is nearer to the first one."""
    priors = columns(20, 50)
    assigner = TopKIoUAssigner(pos_iou_thr=0.9, num_per_gt=1)
    pairs = found(assigner, priors, [column(21), column(25)])
    assert pairs == [(0, 0, 0)]


def test_a_box_may_have_two_targets() -> None:
    """All boxes are candidates, whomever they are positive for."""
    # Boxes 0 and 1 are positive for target 0, boxes 2 and 3 for target 1,
    # which box 1 overlaps by 7/13, box 3 by 6/14.
    priors = columns(20, 22, 25, 29)
    gts = [column(20), column(25)]
    assigner = TopKIoUAssigner(pos_iou_thr=0.4)
    first = [(0, 0, 0), (0, 1, 0), (0, 2, 1)]
    assert found(assigner, priors, gts) == [*first, (0, 1, 1)]
    mended = TopKIoUAssigner(pos_iou_thr=0.4, one_gt_per_box=True)
    assert found(mended, priors, gts) == [*first, (0, 3, 1)]


def test_a_target_that_nothing_overlaps() -> None:
    """Its IoU of 0 is that of all boxes, so all of those are positive."""
    priors = columns(20, 30, 40, 50)
    assigner = TopKIoUAssigner(pos_iou_thr=0.5, num_per_gt=3)
    pairs = found(assigner, priors, [column(20), column(80)])
    # As positives they belong to target 0, the first of equals.
    assert [target for _, _, target in pairs] == [0, 0, 0]
    assert pairs[0] == (0, 0, 0)


def test_images_are_apart() -> None:
    """A batch is its images one by one, also those without objects."""
    generator = torch.Generator().manual_seed(0)
    priors = torch.rand(4, 50, 4, generator=generator).double() * 0.4 + 0.2
    corners = bbox_cxcywh_to_xyxy(priors)
    gts = [
        (corners[i, :count] * 100).tolist()
        for i, count in enumerate((6, 0, 1, 9))
    ]
    assigner = TopKIoUAssigner(pos_iou_thr=0.4)
    expected, offset = [], 0
    for image, boxes in enumerate(gts):
        for _, query, target in found(assigner, priors[image, None], boxes):
            expected.append((image, query, target + offset))
        offset += len(boxes)
    assert found(assigner, priors, *gts) == expected
    assert {image for image, _, _ in expected} == {0, 2, 3}


def test_pairs_are_repeated_for_each_layer() -> None:
    priors = columns(20, 22, 25, 29)
    targets = targets_of([column(20), column(25)])
    assigner = TopKIoUAssigner(pos_iou_thr=0.4)
    one = pairs_of(assigner, priors, targets)
    three = pairs_of(assigner, priors, targets, num_layers=3)
    assert three.counts == [4, 4, 4]
    assert three.layer.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for name in ('image', 'query', 'target'):
        assert getattr(three, name).equal(getattr(one, name).repeat(3))


@pytest.mark.parametrize('num_queries', [0, 1, 3])
def test_fewer_boxes_than_a_target_may_have(num_queries: int) -> None:
    priors = columns(20, 21, 22)[:, :num_queries]
    pairs = found(TopKIoUAssigner(0.5), priors, [column(20)])
    assert pairs == [(0, query, 0) for query in range(num_queries)]


def test_boxes_without_area() -> None:
    """Neither of a box nor of a target comes anything but numbers."""
    priors = torch.cat([columns(20), columns(30, width=0)], 1)
    assigner = TopKIoUAssigner(0.5)
    flat = [30, 0, 30, 100]
    assert found(assigner, priors, [column(20)]) == [(0, 0, 0)]
    pairs = found(assigner, priors, [column(20), flat])
    assert (0, 0, 0) in pairs
    assert pairs_of(assigner, priors, targets_of([flat])).counts == [2]


def test_too_many_positives_are_sampled() -> None:
    """What is left says how many boxes a target has, not which."""
    priors = columns(*range(20, 36), width=40)
    gts = [column(20, 40), column(30, 40)]
    every = found(TopKIoUAssigner(0.5, num_per_gt=16), priors, gts)
    assert len(every) == 16
    assigner = TopKIoUAssigner(0.5, num_per_gt=16, sampler=SAMPLER)
    for seed in range(5):
        torch.manual_seed(seed)
        pairs = found(assigner, priors, gts)
        assert len(pairs) == 4
        counts = [sum(t == gt for *_, t in pairs) for gt in (0, 1)]
        of_target = [[p for p in every if p[2] == gt] for gt in (0, 1)]
        assert pairs == [
            *of_target[0][: counts[0]],
            *of_target[1][: counts[1]],
        ]


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(pos_iou_thr=60), 'pos_iou_thr=60 should be an IoU'),
        (dict(num_per_gt=0), 'num_per_gt=0 should be .*, 1 or more'),
        (
            dict(sampler=dict(type='mmdet.PseudoSampler')),
            "PseudoSampler' cannot keep some of the positives",
        ),
    ],
)
def test_settings_that_cannot_work(settings: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        TopKIoUAssigner(**{'pos_iou_thr': 0.5, **settings})


def test_half_precision() -> None:
    priors = columns(24, 21, 20, 23, 22)
    assigner = TopKIoUAssigner(pos_iou_thr=0.5)
    expected = found(assigner, priors, [column(20)])
    assert found(assigner, priors.bfloat16(), [column(20)])[0] == expected[0]


def test_the_host_waits_once() -> None:
    targets = targets_of([column(20)] * 5, [], [column(40)] * 3)
    priors = columns(20, 40, 60).expand(3, -1, -1)
    assigner = TopKIoUAssigner(0.5, sampler=SAMPLER)
    with WaitingOps() as ops:
        pairs_of(assigner, on_device(priors), targets, num_layers=6)
    assert ops.found == ['cpu']


def test_the_choice_waits_for_nothing() -> None:
    """As the matching takes it, which waits for all at once."""
    targets = targets_of([column(20)] * 5, [], [column(40)] * 3)
    priors = columns(20, 40, 60).expand(3, -1, -1)
    with WaitingOps() as ops:
        choice = TopKIoUAssigner(0.5).choose(on_device(priors), targets)
    assert ops.found == []
    pairs = pairs_of(TopKIoUAssigner(0.5), priors, targets)
    assert choice[choice >= 0].tolist() == pairs.query.tolist()


def test_assign_result() -> None:
    """mmdet's form, in pixels: the last target of a box, or none."""
    priors = bbox_cxcywh_to_xyxy(columns(20, 22, 25, 29, 70)[0]) * 100
    gts = torch.tensor([column(20), column(25)], dtype=torch.float64)
    result = TopKIoUAssigner(pos_iou_thr=0.4).assign(
        InstanceData(priors=priors),
        InstanceData(bboxes=gts, labels=torch.tensor([7, 3])),
    )
    assert result.num_gts == 2
    assert result.gt_inds.tolist() == [1, 2, 2, 0, 0]
    assert result.labels.tolist() == [7, 3, 3, -1, -1]
    torch.testing.assert_close(
        result.max_overlaps, bbox_overlaps(priors, gts).amax(1)
    )


def test_assign_result_without_objects() -> None:
    result = TopKIoUAssigner(0.5).assign(
        InstanceData(priors=torch.rand(3, 4)),
        InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        ),
    )
    assert result.gt_inds.tolist() == [0, 0, 0]
    assert result.labels.tolist() == [-1, -1, -1]


def test_another_head_can_use_it() -> None:
    """mmdet's region proposals, by config alone."""
    config = dict(
        type='RPNHead',
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8]
        ),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
        train_cfg=dict(
            assigner=dict(type='TopKIoUAssigner', pos_iou_thr=0.7),
            sampler=dict(
                type='CappedRandomSampler',
                num=256,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
        ),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MODELS.build(config)
    gts = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 40, 44], [30, 30, 60, 60]]),
        labels=torch.tensor([0, 0]),
    )
    maps = head([torch.rand(1, 8, 8, 8)])
    losses = head.loss_by_feat(
        *maps, [gts], [dict(img_shape=(64, 64), pad_shape=(64, 64))]
    )
    assert losses['loss_rpn_cls'][0] > 0
    assert losses['loss_rpn_bbox'][0] > 0


@pytest.mark.parametrize(('iou_eps', 'expected'), [(0.0, [0, 1]), (1e-6, [0])])
def test_what_is_added_to_the_union_counts_for_small_boxes(
    iou_eps: float, expected: list[int]
) -> None:
    """IoU of 8e-7 / 1e-6, or of 8e-7 / 2e-6 with detrex's epsilon."""
    side = 1e-3  # of a square of 1e-6 of the image's area
    gt = [10.0, 10.0, 10.0 + 100 * side, 10.0 + 100 * side]
    centre = 0.1 + side / 2
    priors = torch.tensor(
        [[[centre, centre, side, side], [centre, centre, side, side * 0.8]]],
        dtype=torch.float64,
    )
    assigner = TopKIoUAssigner(pos_iou_thr=0.7, iou_eps=iou_eps)
    pairs = found(assigner, priors, [gt])
    assert [query for _, query, _ in pairs] == expected
