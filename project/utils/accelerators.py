# Copyright (c) mmdetr authors. All rights reserved.
"""What torch can compute on besides the CPU, whatever it is."""

import torch
from torch import Tensor


def accelerators() -> tuple[str, list[str]]:
    """Name this machine's accelerators.

    Returns:
        tuple[str, list[str]]: What drives them, such as ``'CUDA 13.0'``, and
        the name of each, such as ``'NVIDIA H200'``; ``'CPU'`` and none where
        there is none.
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
        device (torch.device): The device. For the CPU, whose generator is
            the host's, nothing is done.
        method (str): ``'get_rng_state'`` or ``'set_rng_state'``.
        *state (Tensor): The state to set.

    Returns:
        Tensor | None: The state, if one was asked for.
    """
    if device.type in ('cpu', 'meta'):
        return None
    access = getattr(torch.get_device_module(device), method)
    # Apple's is one and takes no device.
    return access(*state, *(() if device.type == 'mps' else (device,)))
