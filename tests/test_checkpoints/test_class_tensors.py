# Copyright (c) mmdetr authors. All rights reserved.
"""The tensors that depend on the number of classes."""

import math

import pytest
import torch
from torch.testing import assert_close

from project.checkpoints.class_tensors import (
    COCO_IDS,
    contiguous_coco,
    count_classes,
    linear_weight,
    prior_bias,
    with_fresh_classes,
)
from project.checkpoints.layouts.rules import ClassTensor

HEADS = (
    ClassTensor(
        'cls_branches.{i}.weight', linear_weight, decoder='decoder.{i}.'
    ),
    ClassTensor('cls_branches.{i}.bias', prior_bias, decoder='decoder.{i}.'),
)


def weights_of(num_classes):
    """Two decoder layers, and a third head for the first stage."""
    rows = torch.arange(float(num_classes))
    weights = {f'decoder.{i}.ffn': torch.zeros(2) for i in range(2)}
    for i in range(3):
        weights[f'cls_branches.{i}.weight'] = rows[:, None].repeat(1, 4)
        weights[f'cls_branches.{i}.bias'] = rows.clone()
    return weights


def test_ids_are_those_that_coco_uses():
    spans = [(1, 11), (13, 25), (27, 28), (31, 44), (46, 65), (67, 67)]
    spans += [(70, 70), (72, 82), (84, 90)]
    expected = [i for first, last in spans for i in range(first, last + 1)]
    assert list(COCO_IDS) == expected
    assert len(COCO_IDS) == 80


def test_decoder_heads_take_the_rows_of_the_ids():
    result = contiguous_coco(weights_of(91), HEADS)
    for i in range(2):
        bias = result[f'cls_branches.{i}.bias']
        assert bias.tolist() == list(COCO_IDS)
        assert torch.equal(result[f'cls_branches.{i}.weight'][:, 2], bias)


def test_the_first_stage_keeps_its_first_rows():
    result = contiguous_coco(weights_of(91), HEADS)
    assert result['cls_branches.2.bias'].tolist() == list(range(80))
    assert result['cls_branches.2.weight'][:, 0].tolist() == list(range(80))


def test_a_head_of_another_size_stays_for_the_check_of_shapes():
    weights = weights_of(91)
    weights['cls_branches.1.bias'] = torch.zeros(20)
    assert count_classes(weights, HEADS) == 91
    result = contiguous_coco(weights, HEADS)
    assert result['cls_branches.1.bias'].shape == (20,)


def test_no_class_tensor_no_count():
    assert count_classes({'neck.weight': torch.zeros(3)}, HEADS) is None


def test_fresh_heads_are_equal_and_predict_one_percent():
    result, changes = with_fresh_classes(weights_of(80), HEADS, 3)
    first = result['cls_branches.0.weight']
    assert first.shape == (3, 4)
    assert first.abs().max() <= 0.5  # 1 / sqrt(fan-in)
    assert first.unique().numel() == first.numel()
    assert torch.equal(first, result['cls_branches.1.weight'])
    assert_close(
        result['cls_branches.1.bias'].sigmoid(), torch.full((3,), 0.01)
    )
    assert 'cls_branches.0.weight: fresh' in changes
    assert len(changes) == 6


def test_fewer_classes_cut_the_first_stage():
    result, changes = with_fresh_classes(weights_of(80), HEADS, 3)
    assert result['cls_branches.2.bias'].tolist() == [0, 1, 2]
    assert 'cls_branches.2.bias: rows 0..2 kept (first stage)' in changes


def test_more_classes_lengthen_the_first_stage():
    result, changes = with_fresh_classes(weights_of(80), HEADS, 82)
    bias = result['cls_branches.2.bias']
    assert bias[:80].tolist() == list(range(80))
    assert_close(bias[80:], torch.full((2,), -math.log(99)))
    assert 'cls_branches.2.bias: rows 80..81 fresh' in changes


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_fresh_tensors_have_the_type_of_the_old(dtype):
    weights = {k: v.to(dtype) for k, v in weights_of(80).items()}
    result, _ = with_fresh_classes(weights, HEADS, 7)
    assert {tensor.dtype for tensor in result.values()} == {dtype}


def test_label_tables_keep_what_follows_the_classes():
    table = (ClassTensor('labels.weight', torch.zeros, num_extra=1),)
    weights = {'labels.weight': torch.arange(92.0)[:, None]}
    assert count_classes(weights, table) == 91
    contiguous = contiguous_coco(weights, table)
    assert contiguous['labels.weight'].flatten().tolist() == [*COCO_IDS, 91]
    fresh, _ = with_fresh_classes(weights, table, 2)
    assert fresh['labels.weight'].flatten().tolist() == [0, 0, 91]


def test_classes_may_lie_on_another_axis():
    table = (ClassTensor('rank.{i}.weight', torch.zeros, axis=1),)
    weights = {'rank.0.weight': torch.arange(91.0).repeat(5, 1)}
    contiguous = contiguous_coco(weights, table)['rank.0.weight']
    assert contiguous.shape == (5, 80)
    assert contiguous[4].tolist() == list(COCO_IDS)
    fresh, _ = with_fresh_classes(weights, table, 3)
    assert fresh['rank.0.weight'].shape == (5, 3)
