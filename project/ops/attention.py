# Copyright (c) mmdetr authors. All rights reserved.
"""Multi-scale deformable attention and the backends that compute it.

A backend is one entry of :data:`BACKENDS`; the first that serves a device is
taken. ``MMDETR_ATTENTION=NAME`` in the environment, or else
``env_cfg = dict(attention_backend=NAME)`` in a config, names another.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from project.utils.errors import UserError

from . import cpp, custom_op, mmcv_forms, triton_op

VARIABLE = 'MMDETR_ATTENTION'
LevelShapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Backend:
    """One way to compute deformable attention.

    Attributes:
        attend: Takes value, spatial shapes, level start index, locations,
            weights and level shapes; locations and weights are float32, or
            float64 if value is. Returns the result in value's type.
        obstacles: Why it does not serve, by type of device; empty where it
            does. It serves no other devices.
        copies_half: Whether it computes on a float32 copy of values in half
            precision, and another that serves is preferred for them.
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
    """Sample features around each query and add them up (Deformable DETR).

    Bilinear samples, zeros outside of a level, as Deformable DETR's equation
    3 has it. Computed in float32 at least, since half precision cannot
    address a pixel of a large image.

    Args:
        value (Tensor): Features of all levels, has shape
            (bs, num_keys, num_heads, channels).
        spatial_shapes (Tensor): (h, w) of each level, int64, has shape
            (num_levels, 2).
        level_start_index (Tensor): Index of each level's first key, has shape
            (num_levels, ).
        sampling_locations (Tensor): (x, y), in [0, 1] within a level, has
            shape (bs, num_queries, num_heads, num_levels, num_points, 2).
        attention_weights (Tensor): Has shape
            (bs, num_queries, num_heads, num_levels, num_points).
        level_shapes (Sequence[tuple[int, int]], optional): The same as
            ``spatial_shapes``, for backends that would read them back from
            the device.

    Returns:
        Tensor: Has shape (bs, num_queries, num_heads * channels) and the type
        of ``value``.

    Raises:
        UserError: If the backend that was asked for does not serve.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    name = backend_name(value.device.type, value.dtype)
    return BACKENDS[name].attend(
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
        dtype (torch.dtype): Type of the values. Defaults to float32.

    Returns:
        str: A key of :data:`BACKENDS`.

    Raises:
        UserError: If the backend that was asked for does not serve.
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
        return 'pytorch'  # ONNX knows no custom ops
    serving = [name for name in BACKENDS if not obstacle_of(name, device)]
    if dtype.itemsize < torch.float32.itemsize:
        serving.sort(key=lambda name: BACKENDS[name].copies_half)
    return serving[0]


def obstacle_of(name: str, device: str) -> str:
    """Why a backend does not serve on a type of device; empty if it does."""
    nowhere = '' if name == 'pytorch' else 'it has no kernel there'
    return BACKENDS[name].obstacles.get(device, nowhere)


def check_backend(name: str) -> None:
    """Refuse a name that no backend has.

    Args:
        name (str): As the user wrote it.

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
    """Take the backend that a config names; the environment goes first.

    Args:
        name (str, optional): ``env_cfg.attention_backend`` of the config. By
            default, the backend is chosen by itself again.

    Raises:
        UserError: If there is no such backend.
    """
    if name:
        check_backend(name)
    _named['config'] = name or ''


@contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Use a backend for a while, whatever was named elsewhere.

    Args:
        name (str): A key of :data:`BACKENDS`.
    """
    check_backend(name)
    before = _named['environment']
    _named['environment'] = name
    try:
        yield
    finally:
        _named['environment'] = before


def describe(device: str) -> str:
    """Say which backend is used on a type of device, and why.

    Args:
        device (str): ``cpu`` or ``cuda``.

    Returns:
        str: The name, then what keeps those from it that would go before.

    Raises:
        UserError: If the backend that was asked for does not serve.
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
