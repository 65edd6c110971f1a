from dataclasses import dataclass

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from project.models.utils.precision import (
    apply_in_full_precision,
    full_precision,
    like_weights,
)

HALF = [torch.float16, torch.bfloat16]


@dataclass
class Pair:
    values: Tensor
    name: str = 'pair'


@full_precision
def product(left: Tensor, right: Tensor) -> Tensor:
    assert not torch.is_autocast_enabled('cpu')
    return left @ right


@pytest.mark.parametrize('dtype', HALF)
def test_neither_autocast_nor_half_tensors_reach_a_function(
    dtype: torch.dtype,
) -> None:
    left, right = torch.full((1, 300), 300.0), torch.full((300, 1), 300.0)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.is_autocast_enabled('cpu')
        found = product(left, right)
        assert torch.is_autocast_enabled('cpu')
    assert found.item() == 27e6  # float16 ends at 65504
    assert (
        product(left.to(dtype), right=right.to(dtype)).dtype == torch.float32
    )


def test_float64_stays() -> None:
    left = torch.rand(2, 3, dtype=torch.float64)
    assert product(left, left.T).dtype == torch.float64
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert product(left, left.T).equal(left @ left.T)


def test_tensors_at_any_depth() -> None:
    half = torch.rand(2, 3, dtype=torch.float16)
    count = torch.arange(2)

    @full_precision
    def seen(*args, **kwargs):
        return args, kwargs

    (pair, (first, second)), found = seen(
        Pair(half), [half, count], found=InstanceData(scores=half)
    )
    for tensor in (pair.values, first, found['found'].scores):
        assert tensor.dtype == torch.float32
        assert tensor.equal(half.float())
    assert pair.name == 'pair'
    assert second is count


@pytest.mark.parametrize('dtype', HALF)
def test_scores_do_not_tie(dtype: torch.dtype) -> None:
    """Of a model in half precision, and under autocast."""
    layer = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.ones_(layer.weight)
    apart = torch.tensor([[1.0], [1 + 2**-12]])
    assert apply_in_full_precision(layer, apart).unique().numel() == 2
    with torch.autocast('cpu', dtype=dtype):
        scores = apply_in_full_precision(layer.float(), apart)
        assert layer(apart).unique().numel() == 1
    assert scores.unique().numel() == 2
    scores.sum().backward()
    assert layer.weight.grad is not None


def test_like_weights() -> None:
    positions = torch.rand(3)
    assert like_weights(positions, nn.Linear(1, 1).half()).dtype == torch.half
    assert like_weights(positions, nn.Linear(1, 1)) is positions
