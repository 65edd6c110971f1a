import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention

from project.models.layers.transformer.query_groups import (
    GroupedSelfAttention,
    QueryGroup,
    QueryGroups,
)

DIMS = 16

GROUPS = {
    'hybrid': [QueryGroup('one2one', 5), QueryGroup('one2many', 8)],
    'denoising': [
        QueryGroup('noise1', 3, sees=('matching',)),
        QueryGroup('noise2', 3, sees=('matching',)),
        QueryGroup('matching', 7),
    ],
    'many': [
        *(QueryGroup(f'noise{i}', 1, sees=('matching',)) for i in range(8)),
        QueryGroup('matching', 5),
    ],
    'single': [QueryGroup('one2one', 13), QueryGroup('one2many', 0)],
}


def blocked(groups: list[QueryGroup]) -> torch.Tensor:
    """The mask that says the same: True where attention is blocked."""
    owner = [group for group in groups for _ in range(group.num_queries)]
    return torch.tensor(
        [[k.name not in (q.name, *q.sees) for k in owner] for q in owner]
    )


@pytest.mark.parametrize('name', GROUPS)
def test_equals_masked_attention_of_mmcv(name: str) -> None:
    torch.manual_seed(0)
    settings = dict(embed_dims=DIMS, num_heads=4, batch_first=True)
    theirs = MultiheadAttention(**settings).double()
    torch.nn.init.normal_(theirs.attn.in_proj_bias)
    ours = GroupedSelfAttention(**settings).double()
    ours.load_state_dict(theirs.state_dict())
    query, position = torch.randn(2, 2, 13, DIMS, dtype=torch.float64)
    query.requires_grad_()
    expected = theirs(
        query, query_pos=position, attn_mask=blocked(GROUPS[name])
    )
    result = ours(
        query, query_pos=position, query_groups=QueryGroups(GROUPS[name])
    )
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    probe = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((result * probe).sum(), query),
        torch.autograd.grad((expected * probe).sum(), query),
    )


def test_without_groups_all_see_each_other() -> None:
    attention = GroupedSelfAttention(DIMS, 4, batch_first=True).eval()
    query = torch.randn(1, 6, DIMS)
    expected = MultiheadAttention.forward(attention, query)
    torch.testing.assert_close(attention(query), expected)


def test_padding_is_passed_over() -> None:
    settings = dict(embed_dims=DIMS, num_heads=4, batch_first=True)
    attention = GroupedSelfAttention(**settings).double().eval()
    query = torch.randn(2, 6, DIMS, dtype=torch.float64)
    mask = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    found = attention(query, key_padding_mask=mask)
    expected = MultiheadAttention.forward(
        attention, query, key_padding_mask=mask
    )
    torch.testing.assert_close(found, expected)
    groups = QueryGroups([QueryGroup('a', 3), QueryGroup('b', 3)])
    with pytest.raises(ValueError, match='groups of queries have no padding'):
        attention(query, key_padding_mask=mask, query_groups=groups)


def test_a_mask_is_refused() -> None:
    """It would else be passed over in silence."""
    attention = GroupedSelfAttention(DIMS, 4, batch_first=True)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match='query_groups instead of'):
        attention(torch.randn(1, 6, DIMS), attn_mask=mask)


@pytest.mark.parametrize('name', GROUPS)
def test_mask_says_the_same_as_the_blocks(name: str) -> None:
    groups = QueryGroups(GROUPS[name])
    mask = groups.attention_mask(torch.device('cpu'))
    assert torch.equal(mask, ~blocked(GROUPS[name]))
    assert groups.attention_mask(torch.device('cpu')) is mask


def test_where_groups_lie() -> None:
    groups = QueryGroups(GROUPS['denoising'])
    assert len(list(groups.attention_blocks())) == 3
    assert groups['matching'] == slice(6, 13)
    assert 'one2one' not in groups
    assert QueryGroups(GROUPS['single'])['one2many'] == slice(13, 13)
