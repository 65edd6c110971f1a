# Copyright (c) mmdetr authors. All rights reserved.
"""Asynchronous transfers between host and device."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """Asynchronous copy of a tensor from the device to the host.

    The copy starts at once; only :meth:`wait` synchronizes.

    Args:
        tensor (Tensor): The tensor, not to be written to until then.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._event = tensor, None
        if _pins(tensor.device):
            host = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=True
            )
            self._tensor = host.copy_(tensor, non_blocking=True)
            self._event = torch.Event(tensor.device)
            # The copy runs on the stream of its device.
            stream = torch.accelerator.current_stream(tensor.device)
            self._event.record(stream)

    def wait(self) -> np.ndarray:
        """Wait for the copy and return it."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.detach().cpu().numpy()


def on_host(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring single numbers to the host, all in one transfer.

    Args:
        values (Mapping[str, Tensor]): By their names; one floating-point
            number each, on one device or several.

    Returns:
        dict[str, Tensor]: The same on the host, of the widest type among
        them and float32.
    """
    dtype = torch.float32
    for value in values.values():
        dtype = torch.promote_types(dtype, value.dtype)
    device = next(iter(values.values())).device
    numbers = [
        value.detach().reshape(()).to(device, dtype)
        for value in values.values()
    ]
    stacked = torch.stack(numbers).cpu()
    return dict(zip(values, stacked.unbind(), strict=True))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor asynchronously from the host to a device.

    Args:
        tensor (Tensor): A tensor on the host.
        device (torch.device): The device.

    Returns:
        Tensor: The copy.
    """
    if _pins(device):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _pins(device: torch.device) -> bool:
    """Whether pinned memory makes transfers asynchronous.

    As in PyTorch's data loader: with every accelerator but Apple's.
    """
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and device.type == accelerator.type != 'mps'
