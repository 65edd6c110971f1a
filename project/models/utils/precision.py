# Copyright (c) mmdetr authors. All rights reserved.
"""Computation in float32 at least, within mixed or half precision."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.func import functional_call

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def full_precision(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Decorator that computes a function in float32 at least.

    Autocast is disabled, and half-precision arguments are cast to float32:
    sums of losses overflow float16, and different boxes, costs and scores
    become equal. float32 and float64 do not change.

    Args:
        function (Callable): Takes tensors, at any depth of lists, tuples,
            dicts, dataclasses and ``InstanceData``. Modules among its
            arguments keep their precision.

    Returns:
        Callable: The decorated function.
    """

    @wraps(function)
    def in_full_precision(
        *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        tensor = _first_tensor([args, kwargs])
        if tensor is None:
            return function(*args, **kwargs)
        with without_autocast(tensor.device):
            return function(*widened(args), **widened(kwargs))

    return in_full_precision


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Disable autocast.

    Args:
        device (torch.device): Device of the tensors.

    Returns:
        AbstractContextManager: The context.
    """
    if device.type == 'meta':  # has no autocast
        return nullcontext()
    try:
        is_on = torch.is_autocast_enabled(device.type)
    except TypeError:  # torch before 2.4 takes no device
        is_on = True
    # Keep it out of exported graphs where it is off anyway.
    return (
        torch.autocast(device.type, enabled=False) if is_on else nullcontext()
    )


def widened(value: Any) -> Any:
    """Cast half-precision tensors to float32.

    Args:
        value (Any): A tensor or a container of tensors, see
            :func:`full_precision`.

    Returns:
        Any: The same, with all half-precision tensors cast.
    """
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return value.to(torch.promote_types(value.dtype, torch.float32))
    if isinstance(value, dict):
        return {key: widened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        items = [widened(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, InstanceData):
        return value.new(**widened(dict(value.items())))
    if is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in fields(value):
            given = getattr(value, field.name)
            wide = widened(given)
            if wide is not given and (
                isinstance(given, Tensor) or is_dataclass(given)
            ):
                changes[field.name] = wide
        return replace(value, **changes) if changes else value
    return value


def apply_in_full_precision(module: nn.Module, *inputs: Tensor) -> Any:
    """Call a module in float32 at least.

    For scores that are sorted: in half precision close candidates tie, and
    the selection is arbitrary.

    Args:
        module (nn.Module): The module, possibly with half-precision weights.
        *inputs (Tensor): Its arguments.

    Returns:
        Any: Its results.
    """
    parameters = dict(module.named_parameters())
    is_half = any(
        torch.promote_types(parameter.dtype, torch.float32) != parameter.dtype
        for parameter in parameters.values()
    )
    with without_autocast(inputs[0].device):
        if not is_half:
            return module(*widened(inputs))
        return functional_call(module, widened(parameters), widened(inputs))


def like_weights(tensor: Tensor, module: nn.Module) -> Tensor:
    """Cast a tensor to the dtype of a module's weights.

    Positional encodings are float32, which half-precision weights do not
    accept.

    Args:
        tensor (Tensor): Of any shape.
        module (nn.Module): The module that the tensor is passed to.

    Returns:
        Tensor: Has the same shape.
    """
    return tensor.to(next(module.parameters()).dtype)


def _first_tensor(value: Any) -> Tensor | None:
    """Find a tensor, for its device."""
    if isinstance(value, Tensor):
        return value
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, InstanceData):
        parts = value.values()
    elif is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name) for field in fields(value))
    for part in parts:
        found = _first_tensor(part)
        if found is not None:
            return found
    return None
