# Copyright (c) mmdetr authors. All rights reserved.
"""Backbone weights, against mmdet's own modules and formulas by hand."""

import pytest
import torch
from mmdet.models.backbones.swin import WindowMSA, swin_converter
from mmdet.models.layers import PatchMerging
from torch import nn
from torch.testing import assert_close

from project.checkpoints.conversion import convert_state_dict
from project.checkpoints.layouts.backbones import (
    derived_buffers,
    unfolded,
    window_index,
)
from project.utils.errors import UserError
from tests.helpers.checkpoints import numbered_weights, read_keys

SWIN = 'h_detr/authors_swin_tiny_hybrid_tricks'


def original_patch_merging(x, norm, reduction):
    """The original's formula; x has shape (bs, height, width, channels)."""
    corners = [x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)]
    return reduction(norm(torch.cat(corners, -1)))


def test_patch_merging_computes_the_same_with_reordered_weights():
    torch.manual_seed(0)
    channels, height, width = 6, 4, 8
    norm = nn.LayerNorm(4 * channels).double()
    reduction = nn.Linear(4 * channels, 10, bias=False).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    ours = PatchMerging(channels, 10).double()
    ours.load_state_dict(
        {
            'norm.weight': unfolded(norm.weight),
            'norm.bias': unfolded(norm.bias),
            'reduction.weight': unfolded(reduction.weight),
        }
    )
    x = torch.randn(2, height, width, channels, dtype=torch.float64)
    expected = original_patch_merging(x, norm, reduction)
    merged, _ = ours(x.flatten(1, 2), (height, width))
    assert_close(merged, expected.flatten(1, 2), rtol=0, atol=1e-12)


def test_swin_equals_the_converter_of_mmdet():
    prefix = 'backbone.0.body.'
    generator = torch.Generator().manual_seed(0)
    keys = read_keys(SWIN)['state_dict']
    weights = numbered_weights(read_keys(SWIN))
    for name in weights:
        if name.startswith(prefix) and 'blocks' not in name:
            weights[name] = torch.randn(keys[name], generator=generator)
    ours = convert_state_dict(weights).state_dict
    theirs = swin_converter(
        {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
    )
    assert len(theirs) == 175
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_unfolded_leaves_what_cannot_be_four_blocks():
    scalar, odd = torch.tensor(1.0), torch.arange(6.0)
    assert unfolded(scalar) is scalar
    assert unfolded(odd) is odd


@pytest.mark.parametrize('window', [1, 4, 7])
def test_window_index_is_that_of_mmdet(window):
    attention = WindowMSA(8, num_heads=2, window_size=(window, window))
    assert torch.equal(window_index(window), attention.relative_position_index)


def test_index_buffers_are_made_checked_and_counted():
    weights = numbered_weights(read_keys(SWIN))
    made = convert_state_dict(weights)
    assert len(made.filled) == 12
    name = 'backbone.0.body.layers.{}.blocks.1.attn.relative_position_index'
    weights[name.format(2)] = window_index(7)
    given = convert_state_dict(weights)
    assert len(given.filled) == 11
    assert given.state_dict.keys() == made.state_dict.keys()
    weights[name.format(3)] = window_index(7).flip(0)
    with pytest.raises(
        UserError, match=r'layers\.3\.blocks\.1.*another order'
    ):
        convert_state_dict(weights)


def test_batch_norms_start_counting_at_zero():
    buffers = derived_buffers({'backbone.bn1.running_var': torch.ones(3)})
    assert list(buffers) == ['backbone.bn1.num_batches_tracked']
    count = buffers['backbone.bn1.num_batches_tracked']
    assert count.dtype == torch.int64
    assert count.item() == 0
