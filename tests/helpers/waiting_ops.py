"""Watches for what makes the host wait for a GPU, on a CPU."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from mmdet.structures import DetDataSample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DeviceTensor(Tensor):
    """A tensor of the host that passes for one on a device.

    What is computed with it is one, too. Whatever of Python's reads it on
    the host is noted by the :class:`WaitingOps` around; so is what would
    send numbers to the device without ``non_blocking``.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')
        result = super().__torch_function__(func, types, args, kwargs)
        waits = name in _READS or (name == 'to' and _goes_to_host(args))
        by_tensor = name == 'repeat_interleave' and any(
            isinstance(value, DeviceTensor)
            for value in [*args[1:], kwargs.get('repeats')]
        )
        if by_tensor and kwargs.get('output_size') is None:
            waits = True
        if waits:
            for ops in WaitingOps.active:
                ops.found.append(name.strip('_'))
        if name in ('cpu', 'to') and waits:
            return result.as_subclass(Tensor)
        return result


_READS = {
    'cpu',
    'item',
    'new_tensor',
    'numpy',
    'tolist',
    '__array__',
    '__bool__',
    '__complex__',
    '__float__',
    '__index__',
    '__int__',
}


def _goes_to_host(args: tuple) -> bool:
    """Whether ``tensor.to`` is asked for the host by name.

    ``other.device`` is the host here, too, but stands for the device.
    """
    return any(isinstance(value, str) and value == 'cpu' for value in args[1:])


def on_device(value: Any) -> Any:
    """Let tensors pass for ones on a device.

    Args:
        value: A tensor, data samples, or lists, tuples and dicts of these.

    Returns:
        Any: The same with :class:`DeviceTensor`.
    """
    if isinstance(value, Tensor):
        return value.as_subclass(DeviceTensor)
    if isinstance(value, DetDataSample):
        sample = value.clone()
        # Labels stay: on the host they are checked at once.
        sample.gt_instances.bboxes = on_device(value.gt_instances.bboxes)
        return sample
    if isinstance(value, dict):
        return {key: on_device(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_device, value))
    return value


class WaitingOps(TorchDispatchMode):
    """Lists, in ``found``, the operations that wait for the device.

    Those whose result depends on values are seen on any tensor, and the
    suppression, which waits in each of its calls of mmcv's op. Reading
    values (``tolist``, ``cpu``, ``bool(tensor)``), ``new_tensor`` and
    repeating by a tensor are seen on what :func:`on_device` gave, and on
    what is computed from it.
    """

    active: ClassVar[list['WaitingOps']] = []
    WAITING = (
        'local_scalar_dense',
        'masked_select',
        'nms',
        'nonzero',
        'unique',
        'equal',
        'is_nonzero',
    )

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __enter__(self) -> 'WaitingOps':
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.active.remove(self)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.strip('_')
        by_mask = name.startswith('index') and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in tree_leaves(args[1:2])
        )
        if by_mask or any(name.startswith(word) for word in self.WAITING):
            self.found.append(name)
        return func(*args, **(kwargs or {}))
