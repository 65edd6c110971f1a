# Copyright (c) mmdetr authors. All rights reserved.
"""Accelerators of any kind: CUDA, ROCm, XPU, MPS, NPU, ..."""

import torch
from torch import Tensor


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
