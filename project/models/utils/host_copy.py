# Copyright (c) mmdetr authors. All rights reserved.
"""Asynchronous transfers between host and device."""

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
        self._event = None
        if _pins(tensor.device):
            host = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=True
            )
            self._tensor = host.copy_(tensor, non_blocking=True)
            self._event = torch.Event(tensor.device)
            # The copy runs on the stream of its device.
            stream = torch.accelerator.current_stream(tensor.device)
            self._event.record(stream)
        else:
            self._tensor = tensor.cpu()

    def wait(self) -> np.ndarray:
        """Wait for the copy and return it."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.numpy()


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
