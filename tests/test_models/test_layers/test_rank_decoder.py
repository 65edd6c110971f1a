import pytest
import torch
from torch import nn

from project.models.layers.transformer.query_groups import (
    QueryGroup,
    QueryGroups,
)
from project.models.layers.transformer.rank_decoder import (
    RankDecoder,
    rank_order,
)

DIMS, RANKS = 16, 7
GROUPS = QueryGroups([QueryGroup('first', 4), QueryGroup('second', 3)])


def make_decoder(**settings) -> RankDecoder:
    torch.manual_seed(0)
    attention = dict(embed_dims=DIMS, num_heads=2, dropout=0.0)
    decoder = RankDecoder(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=attention,
            cross_attn_cfg=dict(**attention, num_levels=1),
            ffn_cfg=dict(embed_dims=DIMS, feedforward_channels=8),
        ),
        **settings,
    )
    return decoder.double()


@pytest.fixture
def inputs() -> dict:
    torch.manual_seed(1)
    heads = nn.ModuleList(nn.Linear(DIMS, 5).double() for _ in range(3))
    return dict(
        query=torch.randn(2, RANKS, DIMS).double(),
        query_pos=torch.randn(2, RANKS, DIMS).double(),
        reference=torch.rand(2, RANKS, 4).double(),
        query_groups=GROUPS,
        cls_branches=heads,
    )


def test_each_group_is_ordered_in_its_own_place() -> None:
    confidence = torch.tensor([[1.0, 9, 3, 2, 5, 7, 6], [4, 3, 2, 1, 0, 1, 2]])
    expected = [[1, 2, 3, 0, 5, 6, 4], [0, 1, 2, 3, 6, 5, 4]]
    assert rank_order(confidence, GROUPS).tolist() == expected
    alone = rank_order(confidence)
    assert alone[0].tolist() == [1, 5, 6, 4, 2, 3, 0]


def test_an_empty_group_has_no_ranks() -> None:
    groups = QueryGroups([QueryGroup('first', 3), QueryGroup('second', 0)])
    order = rank_order(torch.tensor([[1.0, 3, 2]]), groups)
    assert order.tolist() == [[1, 2, 0]]


def test_all_that_belongs_to_a_query_moves_with_it(inputs: dict) -> None:
    decoder = make_decoder()
    *moved, groups = decoder.hand_over(1, **inputs)
    assert groups is GROUPS
    scores = inputs['cls_branches'][1](inputs['query']).amax(-1)
    for image in range(2):
        order = [
            *scores[image, :4].argsort(descending=True),
            *(scores[image, 4:].argsort(descending=True) + 4),
        ]
        before = (inputs[k] for k in ('query', 'query_pos', 'reference'))
        for after, tensor in zip(moved, before, strict=True):
            assert torch.equal(after[image], tensor[image, order])


def test_contents_of_ranks_are_merged_as_published(inputs: dict) -> None:
    """post(cat(query, pre(content of the rank))), section 3.2."""
    decoder = make_decoder(num_ranks=10)
    merged, *_ = decoder.hand_over(1, **inputs)
    sorted_query, *_ = make_decoder().hand_over(1, **inputs)
    table = decoder.rank_aware_content_query[1].weight[:RANKS]
    contents = decoder.pre_racq_trans[1](table).expand(2, -1, -1)
    expected = decoder.post_racq_trans[1](
        torch.cat([sorted_query, contents], -1)
    )
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-14)


def test_nothing_moves_when_switched_off(inputs: dict) -> None:
    decoder = make_decoder(sort_queries=False)
    *after, _ = decoder.hand_over(0, **inputs)
    before = (inputs[k] for k in ('query', 'query_pos', 'reference'))
    for result, tensor in zip(after, before, strict=True):
        assert torch.equal(result, tensor)
    assert not any('racq' in name for name in decoder.state_dict())


def test_tables_lie_between_layers() -> None:
    decoder = make_decoder(num_ranks=10)
    assert len(decoder.rank_aware_content_query) == 2
    assert decoder.rank_aware_content_query[0].weight.shape == (10, DIMS)
