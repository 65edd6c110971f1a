# Copyright (c) mmdetr authors. All rights reserved.
"""Multi-scale deformable attention and the backends that compute it.

Backends are the entries of :data:`BACKENDS`; the first that supports the
device is used. ``MMDETR_ATTENTION=NAME`` in the environment, or else
``env_cfg = dict(attention_backend=NAME)`` in a config, selects another.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from project.utils.errors import UserError

from . import cpp, custom_op, mmcv_forms, triton_op
from .onnx_mode import is_onnx_mode

VARIABLE = 'MMDETR_ATTENTION'
LevelShapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Backend:
    """An implementation of deformable attention.

    Attributes:
        attend: Takes value, spatial shapes, level start index, locations,
            weights and level shapes; locations and weights are float32, or
            float64 if value is. The output has the dtype of value.
        obstacles: By type of device, why it is unavailable; empty if it is
            available. Other devices are not supported.
        copies_half: Whether it casts half-precision values to float32, so
            that other backends are preferred for them.
    """

    attend: Callable[..., Tensor]
    obstacles: dict[str, str]
    copies_half: bool = False


_ELSEWHERE = 'it is a kernel for GPUs'
# In order of preference.
BACKENDS = {
    'mmcv': Backend(
        mmcv_forms.attend_by_kernel,
        {'cuda': mmcv_forms.kernel_obstacle(), 'cpu': _ELSEWHERE},
        copies_half=True,
    ),
    'cpp': Backend(
        custom_op.attend,
        {'cpu': cpp.load(), 'cuda': 'it is compiled for CPUs'},
    ),
    'triton': Backend(
        custom_op.attend,
        {
            'cuda': triton_op.load(),
            'cpu': '' if triton_op.IS_INTERPRETED else _ELSEWHERE,
        },
    ),
    'pytorch': Backend(
        mmcv_forms.attend_by_grid_sample,
        {'cpu': '', 'cuda': ''},
        copies_half=True,
    ),
}
_named = {'environment': os.environ.get(VARIABLE, ''), 'config': ''}


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    level_shapes: LevelShapes | None = None,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, equation 3).

    Bilinear sampling with zero padding. Computed in float32 at least, since
    half precision cannot address the pixels of large images.

    Args:
        value (Tensor): Features of all levels, has shape
            (bs, num_keys, num_heads, channels).
        spatial_shapes (Tensor): (h, w) of each level, int64, has shape
            (num_levels, 2).
        level_start_index (Tensor): Index of each level's first key, has shape
            (num_levels, ).
        sampling_locations (Tensor): (x, y), in [0, 1] of each level, has
            shape (bs, num_queries, num_heads, num_levels, num_points, 2).
        attention_weights (Tensor): Has shape
            (bs, num_queries, num_heads, num_levels, num_points).
        level_shapes (Sequence[tuple[int, int]], optional): The values of
            ``spatial_shapes``, for backends that would read them back from
            the device.

    Returns:
        Tensor: Has shape (bs, num_queries, num_heads * channels) and the
        dtype of ``value``.

    Raises:
        UserError: If the selected backend is unavailable.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    attend = custom_op.attend
    if not is_onnx_mode():
        name = backend_name(value.device.type, value.dtype)
        attend = BACKENDS[name].attend
    return attend(
        value,
        spatial_shapes,
        level_start_index,
        sampling_locations.to(dtype),
        attention_weights.to(dtype),
        level_shapes,
    )


def backend_name(device: str, dtype: torch.dtype = torch.float32) -> str:
    """Name the backend that is used on a type of device.

    Args:
        device (str): Such as ``cpu`` or ``cuda``.
        dtype (torch.dtype): Dtype of the values. Defaults to float32.

    Returns:
        str: A key of :data:`BACKENDS`.

    Raises:
        UserError: If the selected backend is unavailable.
    """
    name = _named['environment'] or _named['config']
    if name:
        check_backend(name)
        obstacle = obstacle_of(name, device)
        if obstacle:
            raise UserError(
                f'Deformable attention by {name!r} was asked for, which does '
                f'not serve on {device}: {obstacle}.'
            )
        return name
    if torch.onnx.is_in_onnx_export():
        return 'pytorch'  # ONNX has no custom ops
    serving = [name for name in BACKENDS if not obstacle_of(name, device)]
    if dtype.itemsize < torch.float32.itemsize:
        serving.sort(key=lambda name: BACKENDS[name].copies_half)
    return serving[0]


def obstacle_of(name: str, device: str) -> str:
    """Reason why a backend is unavailable on a type of device, or ''."""
    nowhere = '' if name == 'pytorch' else 'it has no kernel there'
    return BACKENDS[name].obstacles.get(device, nowhere)


def check_backend(name: str) -> None:
    """Raise unless a backend has this name.

    Raises:
        UserError: If there is no such backend.
    """
    if name not in BACKENDS:
        raise UserError(
            f'There is no backend {name!r} for deformable attention, as '
            f'{VARIABLE} or env_cfg.attention_backend names it; there are '
            f'{", ".join(BACKENDS)}.'
        )


def name_in_config(name: str | None) -> None:
    """Select the backend of a config; the environment takes precedence.

    Args:
        name (str, optional): ``env_cfg.attention_backend`` of the config.
            None restores the automatic choice.

    Raises:
        UserError: If there is no such backend.
    """
    if name:
        check_backend(name)
    _named['config'] = name or ''


@contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Use a backend within a ``with`` block, whatever was selected before."""
    check_backend(name)
    before = _named['environment']
    _named['environment'] = name
    try:
        yield
    finally:
        _named['environment'] = before


def describe(device: str) -> str:
    """Describe which backend is used on a type of device, and why.

    Returns:
        str: Its name, and why those of higher preference are unavailable.

    Raises:
        UserError: If the selected backend is unavailable.
    """
    chosen = backend_name(device)
    if _named['environment']:
        return f'{chosen}, as {VARIABLE} says'
    if _named['config']:
        return f'{chosen}, as env_cfg.attention_backend says'
    better = list(BACKENDS)[: list(BACKENDS).index(chosen)]
    reasons = [f'not {name}: {obstacle_of(name, device)}' for name in better]
    halved = backend_name(device, torch.float16)
    if halved != chosen:
        reasons.append(f'{halved} for values in half precision')
    return '; '.join([chosen, *reasons])
