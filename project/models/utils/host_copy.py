# Copyright (c) mmdetr authors. All rights reserved.
"""Transfers between host and device that neither waits for."""

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way from the device to the host.

    The copy starts at once and does not hold up the host; :meth:`wait` is
    the one place of a training step's loss that does.

    Args:
        tensor (Tensor): What to copy; must not be written to until then.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event = None
        if _pins(tensor.device):
            host = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=True
            )
            self._tensor = host.copy_(tensor, non_blocking=True)
            self._event = torch.Event(tensor.device)
            # The copy runs on its device's stream, whichever is current.
            stream = torch.accelerator.current_stream(tensor.device)
            self._event.record(stream)
        else:
            self._tensor = tensor.cpu()

    def wait(self) -> np.ndarray:
        """Return the values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.numpy()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a tensor of the host to a device.

    Args:
        tensor (Tensor): What to send.
        device (torch.device): Where to.

    Returns:
        Tensor: The same there.
    """
    if _pins(device):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _pins(device: torch.device) -> bool:
    """Whether transfers with a device are asynchronous from pinned memory.

    PyTorch's own data loader pins for every accelerator but Apple's.
    """
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and device.type == accelerator.type != 'mps'
