# Copyright (c) mmdetr authors. All rights reserved.
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
        if tensor.is_cuda:
            host = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=True
            )
            self._tensor = host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            # The copy runs on its device's stream, whichever is current.
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._tensor = tensor.cpu()

    def wait(self) -> np.ndarray:
        """Return the values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.numpy()
