# Copyright (c) mmdetr authors. All rights reserved.
"""Accelerators of any kind: CUDA, ROCm, XPU, MPS, NPU, ..."""

import re

import torch
from torch import Tensor

from project.utils.errors import UserError

_DEVICE = re.compile(r'(cpu|cuda|mps|npu|mlu|musa|xpu|meta)(:\d+)?')


def accelerators() -> tuple[str, list[str]]:
    """Name this machine's accelerators.

    Returns:
        tuple[str, list[str]]: Their platform, such as ``'CUDA 13.0'``, and
        the name of each, such as ``'NVIDIA H200'``; ``'CPU'`` and an empty
        list if there are none.
    """
    device = torch.accelerator.current_accelerator()
    if device is None or not torch.accelerator.is_available():
        return 'CPU', []
    kind = device.type
    module = torch.get_device_module(kind)
    name_of = getattr(module, 'get_device_name', lambda index: kind)
    names = [name_of(i) for i in range(torch.accelerator.device_count())]
    if kind != 'cuda':
        return kind.upper(), names
    if torch.version.hip:
        return f'ROCm {torch.version.hip}', names
    return f'CUDA {torch.version.cuda}', names


def check_device(name: str) -> None:
    """Raise unless this machine has a device.

    Args:
        name (str): Such as ``'cuda:1'``.

    Raises:
        UserError: If torch knows no such name, or there is no such device.
    """
    if not _DEVICE.fullmatch(name):
        raise UserError(
            f'{name!r} is no device; expected cpu, cuda, cuda:1 or the like.'
        )
    kind, _, index = name.partition(':')
    if kind in ('cpu', 'meta'):
        return
    module = getattr(torch, kind, None)
    count = module.device_count() if module else 0
    if int(index or 0) >= count:
        raise UserError(
            f'{name!r} is not there: torch sees {count} devices of the kind '
            f'{kind!r}.'
        )


def device_generator(
    device: torch.device, method: str, *state: Tensor | None
) -> Tensor | None:
    """Get or set the state of a device's random number generator.

    Args:
        device (torch.device): The device; nothing is done for the CPU.
        method (str): ``'get_rng_state'`` or ``'set_rng_state'``.
        *state (Tensor): The state to set.

    Returns:
        Tensor | None: The state, from ``'get_rng_state'``.
    """
    if device.type in ('cpu', 'meta'):
        return None
    access = getattr(torch.get_device_module(device), method)
    # There is only one MPS device, so it is no argument.
    return access(*state, *(() if device.type == 'mps' else (device,)))
