# Copyright (c) mmdetr authors. All rights reserved.
"""Triton's kernels against mmcv's PyTorch form.

Without a GPU they run in Triton's interpreter, which has to be asked for
before Triton is imported: in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from project.ops import (
    BACKENDS,
    attention_backend,
    backend_name,
    triton_op,
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

ROOT = Path(__file__).parents[2]
HAS_GPU = torch.cuda.is_available()
DEVICE = 'cpu' if triton_op.IS_INTERPRETED else 'cuda'
runs_here = pytest.mark.skipif(
    not (triton_op.IS_INTERPRETED or HAS_GPU)
    or bool(obstacle_of('triton', DEVICE)),
    reason='run by test_all_of_it_in_the_interpreter',
)
# Levels, then queries, heads, channels of a head, points, images.
SIZES = {
    'one pixel': ([(1, 1)], 3, 1, 1, 1, 1),
    'two levels': ([(7, 5), (3, 4)], 11, 2, 32, 2, 2),
    'odd sizes': ([(9, 13), (5, 7), (3, 1)], 17, 3, 13, 1, 1),
    'five levels': ([(6, 9), (5, 5), (3, 4), (2, 2), (1, 2)], 5, 1, 40, 1, 1),
    'one query': ([(4, 6)], 1, 2, 24, 3, 1),
    '9,000 queries': ([(3, 4)], 9000, 1, 4, 1, 1),
    'no query': ([(3, 4), (2, 2)], 0, 2, 8, 4, 2),
    'no image': ([(3, 4), (2, 2)], 6, 2, 8, 4, 0),
}
SMALL = [(4, 3), (2, 2)], 6, 2, 5, 1, 1


@pytest.mark.skipif(
    triton_op.IS_INTERPRETED or not importlib.util.find_spec('triton'),
    reason='in the interpreter already, or there is no triton',
)
def test_all_of_it_in_the_interpreter():
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'),
            *('-m', 'not gpu', __file__),
        ],
        cwd=ROOT,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.rpartition(' passed')[0].split()[-1]) > 20


@pytest.mark.skipif(
    triton_op.IS_INTERPRETED or not importlib.util.find_spec('triton'),
    reason='what is interpreted is not compiled, or there is no triton',
)
@pytest.mark.parametrize('name', ['forward_kernel', 'backward_kernel'])
def test_is_compiled_for_a_gpu_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    triton = pytest.importorskip('triton')
    from triton.backends.compiler import GPUTarget

    from project.ops import triton_kernels

    kernel = getattr(triton_kernels, name)
    constants = dict(
        num_heads=8,
        channels=30,
        num_levels=4,
        num_points=4,
        padded=32,
        tile=1024,
    )
    types = dict.fromkeys(kernel.arg_names, '*fp32')
    types |= dict.fromkeys(('value', 'output', 'grad_output'), '*bf16')
    types |= dict(spatial_shapes='*i64', num_keys='i32', num_queries='i32')
    types |= dict.fromkeys(constants, 'constexpr')
    source = triton.compiler.ASTSource(
        kernel,
        {name: types[name] for name in kernel.arg_names},
        {(kernel.arg_names.index(k),): v for k, v in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert compiled.asm['cubin']
    adds = 'red.global.gpu.relaxed.add.f32' in compiled.asm['ptx']
    assert adds == (name == 'backward_kernel')


@pytest.fixture
def run():
    """Values and gradients by Triton, back on the CPU."""

    def run(inputs, grad=None, function=attend) -> list[Tensor]:
        inputs = [tensor.to(DEVICE) for tensor in inputs]
        grad = None if grad is None else grad.to(DEVICE)
        results = values_and_gradients(function, inputs, grad)
        return [result.cpu() for result in results]

    with attention_backend('triton'):
        yield run


@runs_here
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_values_and_gradients_are_those_of_the_pytorch_form(run, sizes, dtype):
    inputs = make_inputs(*sizes, dtype=dtype)
    ours = run(inputs)
    if 0 in sizes:  # mmcv's form cannot take them
        assert ours[0].shape == (sizes[5], sizes[1], sizes[2] * sizes[3])
        assert [grad.abs().sum().item() for grad in ours[1:]] == [0, 0, 0]
        return
    theirs = values_and_gradients(attend_reference, make_inputs(*sizes))
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    for our, their in zip(ours, theirs, strict=True):
        scale = their.abs().max()
        assert our.dtype == dtype
        assert_close(
            our.double() / scale, their / scale, rtol=0, atol=tolerance
        )


@runs_here
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_points_on_the_pixels_and_the_borders(run, dtype):
    """There the gradient jumps, and both take the same side of it."""
    inputs = make_border_inputs(8, 4, dtype)  # all fractions are exact
    theirs = values_and_gradients(attend_reference, inputs)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for our, their in zip(run(inputs), theirs, strict=True):
        assert_close(our, their, rtol=tolerance, atol=tolerance)


@runs_here
@pytest.mark.parametrize('bad', [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize('where', [0, 2, 3], ids=['value', 'at', 'weight'])
def test_what_is_not_finite_stays_where_it_is(run, bad, where):
    """It reaches the result as in the PyTorch form, and no other memory."""
    inputs = make_inputs(*SIZES['odd sizes'], dtype=torch.float32)
    part = inputs[where].view(-1)
    part[:: part.numel() // 3] = bad
    theirs = values_and_gradients(attend_reference, inputs)
    for our, their in zip(run(inputs), theirs, strict=True):
        finite = their.isfinite()
        assert torch.equal(our.isfinite(), finite)
        assert_close(our[finite], their[finite], rtol=1e-4, atol=1e-4)


@runs_here
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_float32(run, dtype):
    value, *rest = make_inputs(*SIZES['two levels'], dtype=torch.float32)
    halved = value.to(dtype)
    grad = torch.linspace(-1, 1, 2 * 11 * 64).to(dtype)
    exact = values_and_gradients(
        attend_reference, (halved.float(), *rest), grad.float()
    )
    ours = run((halved, *rest), grad)
    assert ours[0].dtype == ours[1].dtype == dtype
    assert [grad.dtype for grad in ours[2:]] == [torch.float32] * 2
    for our, their in zip(ours[:2], exact[:2], strict=True):
        assert_close(our, their.to(dtype))
    for our, their in zip(ours[2:], exact[2:], strict=True):
        assert_close(our, their, rtol=1e-4, atol=1e-4)


@runs_here
def test_any_strides_will_do(run):
    packed = make_inputs(*SMALL)
    grad = torch.randn(1, 6, 10, dtype=torch.float64)
    ours = run(map(scattered, packed), scattered(grad))
    for our, their in zip(ours, run(packed, grad), strict=True):
        assert_close(our, their, rtol=1e-12, atol=1e-12)


@runs_here
def test_torch_finds_the_op_well_formed():
    value, shapes, *rest = [t.to(DEVICE) for t in make_inputs(*SMALL)]
    leaves = [tensor.requires_grad_() for tensor in (value, *rest)]
    torch.library.opcheck(
        torch.ops.mmdetr.deformable_attention.default,
        (leaves[0], shapes, *leaves[1:]),
    )


@runs_here
def test_is_exported(run):
    inputs = tuple(tensor.to(DEVICE) for tensor in make_inputs(*SMALL))
    program = torch.export.export(Attention(), inputs)
    assert 'mmdetr.deformable_attention' in str(program.graph)
    theirs = values_and_gradients(Attention(), inputs)
    assert_close(program.module()(*inputs), theirs[0])


@runs_here
@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda v, s, at, w: (v, s[:1], at, w), r'be \(height, width\) of 2'),
        (lambda v, s, at, w: (v, s, at[..., :1], w), 'takes value'),
        (lambda v, s, at, w: (v, s, at, w[:, 1:]), 'belong together'),
        (lambda v, s, at, w: (v[:, :, :1], s, at, w), 'belong together'),
        (lambda v, s, at, w: (v.long(), s, at, w), 'floating point'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, sentence):
    inputs = [t.to(DEVICE) for t in make_inputs(*SMALL, dtype=torch.float32)]
    with (
        attention_backend('triton'),
        pytest.raises(RuntimeError, match=sentence),
    ):
        attend(*change(*inputs))


@runs_here
@pytest.mark.parametrize('warn_only', [True, False])
def test_where_only_determinism_is_allowed_it_is_told(run, warn_only):
    inputs = make_inputs(*SMALL)
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        if warn_only:
            with pytest.warns(UserWarning, match='in no fixed order'):
                run(inputs)
        else:
            with pytest.raises(RuntimeError, match='in no fixed order'):
                run(inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def test_asked_for_without_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setitem(BACKENDS['triton'].obstacles, 'cuda', triton_op.load())
    with (
        attention_backend('triton'),
        pytest.raises(UserError, match=r'cuda: triton is not installed\.$'),
    ):
        backend_name('cuda')


def test_triton_is_not_imported_before_it_is_needed():
    """It takes a second, and nobody on a CPU needs it."""
    code = "import sys, project.ops; print('triton' in sys.modules)"
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == 'False'
