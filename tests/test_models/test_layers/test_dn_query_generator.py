import copy
from unittest import mock

import pytest
import torch
from mmdet.models.layers.transformer import CdnQueryGenerator
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from project.models.layers.dn_query_generator import (
    ContrastiveDNQueryGenerator,
    DenoisingNoise,
    DNQueryGenerator,
)
from project.models.utils.box_ops import normalize_boxes
from project.utils.errors import UserError
from tests.helpers.toy import toy_batch

DIMS = 9
COUNTS = [2, 0, 1]
LABELS = torch.tensor([4, 1, 3])
BOXES = torch.tensor(
    [[0.5, 0.5, 0.4, 0.2], [0.2, 0.3, 0.1, 0.1], [0.9, 0.9, 0.2, 0.2]]
)


def generator(num_groups: int = 2, **settings) -> DNQueryGenerator:
    settings.setdefault('group_cfg', dict(num_groups=num_groups))
    torch.manual_seed(0)
    return DNQueryGenerator(5, DIMS, **settings)


def given_noise(**changes: Tensor) -> mock.Mock:
    """Noise of 2 groups of 3: none, but what is given."""
    numbers = dict(
        label_rand=torch.full((6,), 0.9),
        labels=torch.zeros(6, dtype=torch.long),
        box_rand=torch.full((6, 4), 0.5),
    )
    return mock.Mock(return_value=DenoisingNoise(**{**numbers, **changes}))


def test_layout() -> None:
    """Group by group; the rest of each is filled with zeros."""
    module = generator()
    module.draw_noise = given_noise()
    queries = module(LABELS, BOXES, COUNTS)
    assert (queries.num_groups, queries.group_size) == (2, 2)
    assert queries.num_queries == 4
    assert queries.image.tolist() == [0, 0, 2, 0, 0, 2]
    assert queries.place.tolist() == [0, 1, 0, 2, 3, 2]
    assert queries.target.tolist() == [0, 1, 2, 0, 1, 2]
    is_filler = [[False] * 4, [True] * 4, [False, True, False, True]]
    assert queries.is_filler.tolist() == is_filler
    assert (queries.query[queries.is_filler] == 0).all()
    assert (queries.references_unact[queries.is_filler] == 0).all()
    table = module.label_embedding.weight
    for image, place, target in [(0, 0, 0), (0, 3, 1), (2, 2, 2)]:
        content = queries.query[image, place]
        assert torch.equal(content[:-1], table[LABELS[target]])
        assert content[-1] == 1  # the indicator
        torch.testing.assert_close(
            queries.references_unact[image, place].sigmoid(), BOXES[target]
        )


def test_noise() -> None:
    module = generator(label_noise_scale=0.2, box_noise_scale=0.4)
    label_rand = torch.tensor([0.1, 0.2, 0.19, 0.5, 0.5, 0.5])
    box_rand = torch.full((6, 4), 0.5)
    box_rand[0] = torch.tensor([1.0, 0.0, 0.75, 0.25])
    box_rand[5, 0] = 1e6  # far out
    module.draw_noise = given_noise(
        label_rand=label_rand, labels=torch.arange(6) % 3, box_rand=box_rand
    )
    queries = module(LABELS, BOXES, COUNTS)
    table = module.label_embedding.weight
    found = queries.query[queries.image, queries.place][:, :-1]
    assert torch.equal(found, table[torch.tensor([0, 1, 2, 4, 1, 3])])
    boxes = queries.references_unact[queries.image, queries.place].sigmoid()
    # 0.4 of half the width to the right, of half the height up; width by
    # 0.4 * 0.5 of itself larger, height as much smaller.
    expected = torch.tensor([0.58, 0.46, 0.48, 0.16])
    torch.testing.assert_close(boxes[0], expected)
    torch.testing.assert_close(boxes[1:5], BOXES[[1, 2, 0, 1]])
    # Clamped 0.001 before the border.
    assert boxes[5, 0].item() == pytest.approx(0.999)


def test_drawn_noise_keeps_to_its_bounds() -> None:
    labels = torch.full((4000,), 2)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4]]).expand(4000, 4)
    module = generator(num_groups=1)
    queries = module(labels, boxes, [4000])
    change = queries.references_unact[0].sigmoid() - boxes
    reach = torch.tensor([0.04, 0.08, 0.08, 0.16])
    assert (change.abs() <= reach + 1e-6).all()
    assert (change.abs().amax(0) > 0.98 * reach).all()
    torch.testing.assert_close(
        change.mean(0), torch.zeros(4), rtol=0, atol=0.005
    )
    table = module.label_embedding.weight
    kept = (queries.query[0, :, :-1] == table[2]).all(1)
    # One of five draws is the true label again.
    assert kept.float().mean().item() == pytest.approx(0.84, abs=0.02)


@pytest.mark.parametrize(
    ('flip_to_no_object', 'highest'), [(False, 4), (True, 5)]
)
def test_labels_that_replace(flip_to_no_object: bool, highest: int) -> None:
    module = generator(flip_to_no_object=flip_to_no_object)
    noise = module.draw_noise(2000, torch.device('cpu'))
    assert set(noise.labels.tolist()) == set(range(highest + 1))


def test_a_seed_repeats_the_noise() -> None:
    first, second, other = (generator(seed=seed) for seed in (3, 3, 4))
    queries = [m(LABELS, BOXES, COUNTS) for m in (first, second, other)]
    references = [q.references_unact for q in queries]
    assert torch.equal(references[0], references[1])
    assert not torch.equal(references[0], references[2])
    again = first(LABELS, BOXES, COUNTS).references_unact
    assert not torch.equal(references[0], again)
    torch.manual_seed(0)  # the seed of all else has no part in it
    expected = second(LABELS, BOXES, COUNTS).references_unact
    assert torch.equal(again, expected)
    copy.deepcopy(first)  # as for an average of weights


@pytest.mark.parametrize(
    ('counts', 'num_groups'),
    [([1, 0], 10), ([4, 7], 1), ([11, 2], 1), ([0, 0], 10)],
)
def test_groups_adapt_to_the_crowd(counts: list[int], num_groups: int) -> None:
    module = generator(group_cfg=dict(dynamic=True, num_dn_queries=10))
    total = sum(counts)
    labels, boxes = torch.zeros(total, dtype=int), torch.rand(total, 4)
    queries = module(labels, boxes, counts)
    assert queries.num_groups == num_groups
    assert queries.num_queries == num_groups * max(counts)


@pytest.mark.parametrize('num_groups', [0, 2])
def test_no_object_leaves_the_table_in_the_graph(num_groups: int) -> None:
    module = generator(num_groups)
    empty = torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), [0, 0]
    queries = module(*empty)
    assert queries.query.shape == (2, 0, DIMS)
    assert queries.references_unact.shape == (2, 0, 4)
    joined = torch.cat([queries.query, torch.ones(2, 3, DIMS)], 1)
    joined.sum().backward()
    assert (module.label_embedding.weight.grad == 0).all()


def test_who_sees_whom() -> None:
    module = generator()
    groups = module(LABELS, BOXES, COUNTS).query_groups(3)
    mask = groups.attention_mask(torch.device('cpu'))
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[:2, :2] = expected[2:4, 2:4] = True
    expected[:, 4:] = True
    assert torch.equal(mask, expected)


def test_content_of_matched_queries() -> None:
    module = generator()
    content = module.no_object_content()
    assert torch.equal(content[:-1], module.label_embedding.weight[5])
    assert content[-1] == 0


@pytest.mark.parametrize('counts', [[2, 0, 1], [0, 3], [4]])
def test_contrastive_queries_are_those_of_mmdet(counts: list[int]) -> None:
    """With the random numbers that mmdet's generator draws."""
    _, samples = toy_batch(
        ((60, 90),) * len(counts), tuple(counts), num_classes=5
    )
    theirs = CdnQueryGenerator(
        5,
        embed_dims=DIMS,
        num_matching_queries=3,
        label_noise_scale=0.5,
        box_noise_scale=0.8,
        group_cfg=dict(dynamic=True, num_dn_queries=10),
    )
    torch.manual_seed(1)
    query, references, mask, meta = theirs(samples)

    ours = ContrastiveDNQueryGenerator(
        5,
        DIMS,
        label_noise_scale=0.5,
        box_noise_scale=0.8,
        group_cfg=dict(num_dn_queries=10),
    )
    ours.load_state_dict(theirs.state_dict())

    def mmdets_draw(num: int, device: torch.device) -> DenoisingNoise:
        torch.manual_seed(1)
        label_rand, labels = torch.rand(num), torch.zeros(num, dtype=int)
        chosen = (label_rand < 0.25).nonzero().flatten()
        labels[chosen] = torch.randint_like(chosen, 0, 5)
        sign = torch.randint(2, (num, 4), dtype=torch.float32) * 2 - 1
        return DenoisingNoise(label_rand, labels, torch.rand(num, 4), sign)

    ours.draw_noise = mmdets_draw
    instances = [sample.gt_instances for sample in samples]
    labels = torch.cat([gt.labels for gt in instances])
    boxes, _ = normalize_boxes(
        [gt.bboxes for gt in instances],
        [sample.img_shape for sample in samples],
        like=query,
    )
    queries = ours(labels, boxes, counts)
    assert queries.num_groups == meta['num_denoising_groups']
    assert queries.num_queries == meta['num_denoising_queries']
    torch.testing.assert_close(queries.query, query)
    torch.testing.assert_close(
        queries.references_unact, references, rtol=1e-4, atol=1e-5
    )
    groups = queries.query_groups(3)
    assert torch.equal(groups.attention_mask(mask.device), ~mask)
    # The first half of each group is to be given back, and only it.
    half = queries.place % queries.group_size < max(counts)
    assert half.all()
    assert len(queries.place) == queries.num_groups * sum(counts)
    assert (~queries.is_filler).sum() == 2 * len(queries.place)


def test_contrastive_noise_is_drawn_farther_for_second_copies() -> None:
    module = ContrastiveDNQueryGenerator(
        5, DIMS, group_cfg=dict(dynamic=False, num_groups=1), seed=0
    )
    count = 2000
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2]]).expand(count, 4)
    queries = module(torch.zeros(count, dtype=int), boxes, [count])
    corners = bbox_cxcywh_to_xyxy(queries.references_unact[0].sigmoid())
    shift = (corners - torch.tensor([0.4, 0.4, 0.6, 0.6])).abs()
    first, second = shift.split(count)
    # A box whose corners changed sides has them in the other order.
    assert (first <= 0.1 + 1e-5).all()
    assert second[:, :2].amax() > 0.19
    assert (second.amin(1) > 0.09).float().mean() > 0.7


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(label_noise_scale=1.5), r'label_noise_scale=1\.5 .*0 to 1'),
        (
            dict(box_noise_scale=-1),
            'box_noise_scale=-1 should be a number, 0 or',
        ),
        (dict(group_cfg=dict(num_groups=-1)), 'num_groups=-1 .*0 or more'),
        (dict(group_cfg=dict(dynamic=True)), 'num_dn_queries=None .*=True'),
        (dict(group_cfg=dict(dynamic=False)), 'num_groups=None .*=False'),
        (dict(num_classes=3), "dn_cfg takes no 'num_classes'"),
        (dict(group_cfg=dict(groups=3)), "group_cfg takes no 'groups'"),
        (dict(group_cfg=3), 'group_cfg=3 should be a dict of dynamic, num_g'),
        (dict(flip_to_no_object=1), 'flip_to_no_object=1 should be True or'),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator(**settings)


def test_no_queries_are_no_groups() -> None:
    module = generator(group_cfg=dict(dynamic=True, num_dn_queries=0))
    denoising = module(torch.tensor([0, 1, 2]), torch.rand(3, 4), [3])
    assert denoising.num_groups == 0
    assert denoising.query.shape[:2] == (1, 0)
