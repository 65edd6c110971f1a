"""Watches for what makes the host wait for a GPU, on a CPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WaitingOps(TorchDispatchMode):
    """Lists, in ``found``, the operations that wait for the device."""

    WAITING = (
        'local_scalar_dense',
        'masked_select',
        'nonzero',
        'unique',
        'equal',
        'is_nonzero',
    )

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.strip('_')
        by_mask = name.startswith('index') and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in tree_leaves(args[1:])
        )
        if by_mask or any(name.startswith(word) for word in self.WAITING):
            self.found.append(name)
        return func(*args, **(kwargs or {}))
