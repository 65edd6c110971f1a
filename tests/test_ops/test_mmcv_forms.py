# Copyright (c) mmdetr authors. All rights reserved.
import pytest
import torch

from project.ops import mmcv_forms


def test_the_kernel_gets_contiguous_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mmcv's CUDA kernel refuses others, and knows no bfloat16."""
    given = []

    def apply(*args: object) -> torch.Tensor:
        given.extend(args)
        return torch.zeros(2, 7, 16)

    monkeypatch.setattr(
        mmcv_forms.MultiScaleDeformableAttnFunction, 'apply', apply
    )
    output = mmcv_forms.attend_by_kernel(
        torch.rand(60, 2, 4, 4).transpose(0, 1).bfloat16(),
        torch.tensor([[6, 8], [3, 4]]),
        torch.tensor([0, 48]),
        torch.rand(7, 2, 4, 2, 4, 2).transpose(0, 1),
        torch.rand(7, 2, 4, 2, 4).transpose(0, 1),
    )
    value, shapes, starts, locations, weights, images = given
    for tensor in (value, shapes, starts, locations, weights):
        assert tensor.is_contiguous()
    assert value.shape == (2, 60, 4, 4)
    assert value.dtype == locations.dtype == torch.float32
    assert locations.shape == (2, 7, 4, 2, 4, 2)
    assert weights.shape == (2, 7, 4, 2, 4)
    assert images == 2
    assert output.dtype == torch.bfloat16
