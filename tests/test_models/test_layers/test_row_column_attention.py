import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from project.models.layers.transformer.row_column_attention import (
    RowColumnAttention,
)
from project.utils.errors import UserError

DIMS, HEADS = 12, 3
PADDING = (
    torch.tensor([[False] * 5, [False] * 3 + [True] * 2]),
    torch.tensor([[False] * 4, [False] * 1 + [True] * 3]),
)


def make_attention(**settings) -> RowColumnAttention:
    torch.manual_seed(0)
    attention = RowColumnAttention(DIMS, HEADS, **settings).double()
    torch.nn.init.normal_(attention.in_proj_bias)  # 0 would hide mistakes
    return attention


def make_inputs(
    height: int, width: int, queries: tuple[int, ...] = (7,)
) -> dict:
    def draw(*shape: int) -> Tensor:
        return torch.randn(2, *shape, DIMS, dtype=torch.float64)

    torch.manual_seed(1)
    return dict(
        query=draw(*queries),
        value=draw(height, width),
        query_pos=(draw(*queries), draw(*queries)),
        value_pos=(draw(width), draw(height)),
    )


def plain_attention(
    attention: RowColumnAttention,
    query: Tensor,
    value: Tensor,
    query_pos: tuple,
    value_pos: tuple,
    padding: tuple = (None, None),
) -> Tensor:
    """As in the paper, with attention weights of all pixels."""
    key_x = value + value_pos[0][:, None]
    key_y = value + value_pos[1][:, :, None]
    inputs = (query + query_pos[0], query + query_pos[1], key_x, key_y, value)
    matrices = attention.in_proj_weight.split(DIMS)
    biases = attention.in_proj_bias.split(DIMS)
    query_x, query_y, key_x, key_y, value = (
        (x @ w.T + b).unflatten(-1, (HEADS, -1))
        for x, w, b in zip(inputs, matrices, biases, strict=True)
    )
    scale = (DIMS // HEADS) ** -0.5
    scores_x = torch.einsum(
        'nqhd,nwhd->nhqw', query_x.flatten(1, -3), key_x.mean(1)
    )
    scores_y = torch.einsum(
        'nqhd,nkhd->nhqk', query_y.flatten(1, -3), key_y.mean(2)
    )
    weights = []
    for scores, padded in zip((scores_x, scores_y), padding, strict=True):
        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None], -torch.inf)
        weights.append((scores * scale).softmax(-1))
    pixels = (weights[1][..., None] * weights[0][..., None, :]).flatten(3)
    output = torch.einsum('nhqp,nphd->nqhd', pixels, value.flatten(1, 2))
    output = attention.out_proj(output.flatten(2))
    return query + output.view_as(query)


@pytest.mark.parametrize('is_padded', [False, True])
@pytest.mark.parametrize('queries', [(7,), (3, 2)])
def test_attention_is_that_of_the_plain_formulation(
    queries: tuple[int, ...], is_padded: bool
) -> None:
    attention = make_attention()
    inputs = make_inputs(4, 5, queries)
    if is_padded:
        inputs['padding'] = PADDING
    check_against_plain(attention, inputs)


@pytest.mark.parametrize('shape', [(5, 4), (4, 4), (1, 6), (6, 1)])
def test_either_order_of_the_sums(shape: tuple[int, int]) -> None:
    check_against_plain(make_attention(), make_inputs(*shape))


def check_against_plain(attention: RowColumnAttention, inputs: dict) -> None:
    query = inputs['query'].requires_grad_()
    value = inputs['value'].requires_grad_()
    leaves = [query, value, *attention.parameters()]
    outputs = attention(**inputs), plain_attention(attention, **inputs)
    gradients = [torch.autograd.grad(x.sin().sum(), leaves) for x in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(
        self,
        func: object,
        types: object,
        args: tuple = (),
        kwargs: object = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize('shape', [(8, 24), (24, 8), (16, 16)])
def test_no_weights_of_all_pixels(shape: tuple[int, int]) -> None:
    """Between the sums is one vector for each query and short-axis place."""
    height, width = shape
    inputs = make_inputs(height, width, (40,))
    attention = make_attention()
    with torch.no_grad(), LargestTensor() as largest:
        attention(**inputs)
    assert largest.numel == 2 * 40 * min(shape) * DIMS
    assert largest.numel < 2 * HEADS * 40 * height * width


def test_dropout_is_for_training_only() -> None:
    attention = make_attention(dropout=0.5)
    inputs = make_inputs(4, 5)
    expected = plain_attention(attention, **inputs)
    assert not torch.allclose(attention.train()(**inputs), expected)
    torch.testing.assert_close(attention.eval()(**inputs), expected)


def test_initial_weights() -> None:
    """Xavier on the fused matrix, 0 for biases, else PyTorch's."""
    torch.manual_seed(0)
    attention = RowColumnAttention(256, 8)
    bound = (6 / (1280 + 256)) ** 0.5
    assert attention.in_proj_weight.shape == (1280, 256)
    assert 0.99 * bound < attention.in_proj_weight.abs().max() <= bound
    assert not attention.in_proj_bias.any()
    assert not attention.out_proj.bias.any()
    assert 0.99 / 16 < attention.out_proj.weight.abs().max() <= 1 / 16


def test_heads_divide_the_width() -> None:
    with pytest.raises(UserError, match=r'embed_dims=10 .* num_heads=4'):
        RowColumnAttention(10, 4)
