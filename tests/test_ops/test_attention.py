# Copyright (c) mmdetr authors. All rights reserved.
"""Every backend of deformable attention against mmcv's PyTorch form."""

import math

import pytest
import torch
from torch.testing import assert_close

from project.ops import (
    BACKENDS,
    attention_backend,
    backend_name,
    describe,
    name_in_config,
)
from project.ops.attention import obstacle_of
from project.utils.errors import UserError
from tests.helpers.attention import (
    Attention,
    attend,
    attend_reference,
    make_border_inputs,
    make_inputs,
    scattered,
    values_and_gradients,
)

HERE = [name for name in BACKENDS if not obstacle_of(name, 'cpu')]
needs_cpp = pytest.mark.skipif('cpp' not in HERE, reason='not compiled here')
# Levels, then queries, heads, channels of a head, points, images.
SIZES = {
    'one pixel': ([(1, 1)], 3, 1, 1, 1, 1),
    'two levels': ([(7, 5), (3, 4)], 11, 4, 32, 4, 2),
    'odd sizes': ([(9, 13), (5, 7), (3, 1)], 17, 3, 13, 3, 3),
    'four levels': ([(8, 8), (4, 4), (2, 2), (1, 1)], 10, 8, 8, 4, 1),
    'five levels': ([(6, 9), (5, 5), (3, 4), (2, 2), (1, 2)], 5, 2, 40, 2, 2),
    'one query': ([(4, 6)], 1, 2, 24, 5, 1),
    '9,000 queries': ([(3, 4)], 9000, 1, 4, 1, 1),
    'no query': ([(3, 4), (2, 2)], 0, 2, 8, 4, 2),
    'no image': ([(3, 4), (2, 2)], 6, 2, 8, 4, 0),
}


@pytest.fixture(params=HERE)
def backend(request):
    with attention_backend(request.param):
        yield request.param


@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_values_and_gradients_are_those_of_the_pytorch_form(backend, sizes):
    inputs = make_inputs(*sizes)
    if 0 in sizes:  # mmcv's form cannot take them
        output, *grads = values_and_gradients(attend, inputs)
        assert output.shape == (sizes[5], sizes[1], sizes[2] * sizes[3])
        assert [grad.abs().sum().item() for grad in grads] == [0, 0, 0]
        return
    ours = values_and_gradients(attend, inputs)
    theirs = values_and_gradients(attend_reference, inputs)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, rtol=1e-11, atol=1e-12)


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_points_on_the_pixels_and_the_borders(dtype):
    """There the gradient jumps, and both take the same side of it."""
    inputs = make_border_inputs(6, 5, dtype)
    with attention_backend('cpp'):
        ours = values_and_gradients(attend, inputs)
    theirs = values_and_gradients(attend_reference, inputs)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, rtol=tolerance, atol=tolerance)


@needs_cpp
def test_gradients_are_those_of_differences():
    value, shapes, locations, weights = make_inputs(
        [(3, 4), (2, 2)], 2, 2, 5, 2, 1
    )
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    with attention_backend('cpp'):
        assert torch.autograd.gradcheck(
            lambda v, at, w: attend(v, shapes, at, w), leaves
        )


@needs_cpp
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize('where', ['value', 'locations', 'weights', 'grad'])
def test_what_is_not_finite_spreads_as_in_the_pytorch_form(bad, where):
    inputs = make_inputs(*SIZES['odd sizes'], dtype=torch.float32)
    grad = torch.randn(3 * 17 * 39)
    parts = dict(
        value=inputs[0], locations=inputs[2], weights=inputs[3], grad=grad
    )
    part = parts[where].view(-1)
    part[:: part.numel() // 5] = bad
    with attention_backend('cpp'):
        ours = values_and_gradients(attend, inputs, grad)
    theirs = values_and_gradients(attend_reference, inputs, grad)
    assert_close(ours[0], theirs[0], equal_nan=True)
    for our, their in zip(ours[1:], theirs[1:], strict=True):
        finite = their.isfinite()
        assert torch.equal(our.isfinite(), finite)
        assert_close(our[finite], their[finite], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_float32(backend, dtype):
    inputs = make_inputs(*SIZES['two levels'], dtype=torch.float32)
    value, *rest = inputs
    halved = value.to(dtype)
    exact = values_and_gradients(attend_reference, (halved.float(), *rest))
    ours = values_and_gradients(attend, (halved, *rest))
    assert ours[0].dtype == ours[1].dtype == dtype
    assert [grad.dtype for grad in ours[2:]] == [torch.float32] * 2
    assert_close(ours[0], exact[0].to(dtype))
    # The gradient of the output is halved as well.
    assert_close(ours[1].float(), exact[1], rtol=0.02, atol=0.02)


@needs_cpp
def test_any_strides_will_do():
    packed = make_inputs(*SIZES['two levels'])
    grad = torch.randn(2, 11, 128, dtype=torch.float64)
    with attention_backend('cpp'):
        ours = values_and_gradients(
            attend, map(scattered, packed), scattered(grad)
        )
        theirs = values_and_gradients(attend, packed, grad)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our, their)


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_any_number_of_threads_computes_the_same_bits(dtype):
    inputs = make_inputs([(20, 15), (6, 9)], 300, 3, 20, 4, 2, dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with attention_backend('cpp'):
                results.append(values_and_gradients(attend, inputs))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for one, many in zip(results[0], result, strict=True):
            assert torch.equal(one, many)


@needs_cpp
def test_both_orders_of_the_values_compute_the_same_bits():
    """Many queries have the values brought together by heads, few not."""
    value, shapes, locations, weights = make_inputs(
        [(9, 8), (4, 3)], 60, 2, 24, 4, 1
    )
    with attention_backend('cpp'):
        whole = attend(value, shapes, locations, weights)
        parts = [
            attend(value, shapes, *pair)
            for pair in zip(
                locations.split(3, 1), weights.split(3, 1), strict=True
            )
        ]
    assert torch.equal(whole, torch.cat(parts, 1))


@needs_cpp
def test_torch_finds_the_op_well_formed():
    value, shapes, locations, weights = make_inputs(*SIZES['two levels'])
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    torch.library.opcheck(
        torch.ops.mmdetr.deformable_attention.default,
        (leaves[0], shapes, *leaves[1:]),
    )


@needs_cpp
def test_a_second_derivative_is_refused():
    value, shapes, locations, weights = make_inputs(*SIZES['one query'])
    with attention_backend('cpp'):
        output = attend(value.requires_grad_(), shapes, locations, weights)
        (grad,) = torch.autograd.grad(output.sum(), value, create_graph=True)
        with pytest.raises(RuntimeError, match='no second derivative'):
            grad.sum().backward()


@needs_cpp
@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda v, s, at, w: (v[:, 1:], s, at, w), 'levels have 47 pixels'),
        (lambda v, s, at, w: (v, s[:1], at, w), r'be \(height, width\) of 2'),
        (lambda v, s, at, w: (v, s, at[..., :1], w), 'takes value'),
        (lambda v, s, at, w: (v, s, at, w[:, 1:]), 'belong together'),
        (lambda v, s, at, w: (v.long(), s, at, w), 'floating point'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, sentence):
    inputs = make_inputs(*SIZES['two levels'], dtype=torch.float32)
    with (
        attention_backend('cpp'),
        pytest.raises(RuntimeError, match=sentence),
    ):
        attend(*change(*inputs))


@needs_cpp
def test_is_exported_with_any_number_of_queries_and_keys():
    inputs = make_inputs(*SIZES['two levels'])
    queries, keys = torch.export.Dim('queries'), torch.export.Dim('keys')
    with attention_backend('cpp'):
        program = torch.export.export(
            Attention(),
            inputs,
            dynamic_shapes=({1: keys}, None, {1: queries}, {1: queries}),
        )
    other = make_inputs([(4, 3), (6, 6)], 23, 4, 32, 4, 2)
    assert_close(program.module()(*other), Attention()(*other))


@needs_cpp
@pytest.mark.slow
def test_is_compiled_without_a_break():
    inputs = make_inputs(*SIZES['two levels'])
    with attention_backend('cpp'):
        compiled = torch.compile(Attention(), fullgraph=True)
        ours = values_and_gradients(compiled, inputs)
        theirs = values_and_gradients(Attention(), inputs)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their)


def test_the_fastest_that_serves_is_taken(monkeypatch):
    monkeypatch.setitem(
        BACKENDS['cpp'].obstacles, 'cpu', 'not compiled; do this'
    )
    monkeypatch.setitem(BACKENDS['mmcv'].obstacles, 'cuda', '')
    monkeypatch.setitem(BACKENDS['triton'].obstacles, 'cuda', 'not here')
    assert backend_name('cpu') == 'pytorch'
    assert backend_name('cuda') == 'mmcv'
    assert backend_name('cuda', torch.bfloat16) == 'mmcv'
    assert backend_name('xpu') == 'pytorch'
    assert 'not cpp: not compiled; do this' in describe('cpu')
    monkeypatch.setitem(BACKENDS['cpp'].obstacles, 'cpu', '')
    assert backend_name('cpu') == 'cpp'
    assert backend_name('cpu', torch.bfloat16) == 'cpp'
    monkeypatch.setitem(BACKENDS['triton'].obstacles, 'cuda', '')
    assert backend_name('cuda') == 'mmcv'
    assert backend_name('cuda', torch.bfloat16) == 'triton'
    assert 'triton for values in half precision' in describe('cuda')
    monkeypatch.setitem(BACKENDS['mmcv'].obstacles, 'cuda', 'compiled for CPU')
    assert backend_name('cuda') == 'triton'


def test_the_environment_goes_before_the_config():
    name_in_config('pytorch')
    try:
        assert backend_name('cpu') == 'pytorch'
        assert describe('cpu').endswith('as env_cfg.attention_backend says')
        with attention_backend('mmcv'), pytest.raises(UserError) as caught:
            backend_name('cpu')
    finally:
        name_in_config(None)
    assert "'mmcv' was asked for" in str(caught.value)


def test_an_unknown_backend_is_told_with_those_there_are():
    with pytest.raises(
        UserError, match=r"'cuda' .*mmcv, cpp, triton, pytorch"
    ):
        name_in_config('cuda')
