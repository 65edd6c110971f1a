# Copyright (c) mmdetr authors. All rights reserved.
"""What is computed in float32 at least, whatever precision is around it."""

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
    """Compute a function in float32 at least, as a decorator.

    Autocast is off inside, and half-precision tensors among the arguments
    are made float32: sums of losses overflow float16, and boxes, costs and
    scores that differ become equal. float32 and float64 stay as they are.

    Args:
        function (Callable): Takes tensors, at any depth of lists, tuples,
            dicts, dataclasses and ``InstanceData``. Modules among its
            arguments keep their precision.

    Returns:
        Callable: The same in full precision.
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
    """Switch autocast off.

    Args:
        device (torch.device): Where the tensors are.

    Returns:
        AbstractContextManager: The context.
    """
    if device.type == 'meta':  # which has none
        return nullcontext()
    try:
        is_on = torch.is_autocast_enabled(device.type)
    except TypeError:  # torch before 2.4 cannot be asked
        is_on = True
    # Where it is off anyway, exported graphs need not say so.
    return (
        torch.autocast(device.type, enabled=False) if is_on else nullcontext()
    )


def widened(value: Any) -> Any:
    """Make half-precision tensors float32.

    Args:
        value (Any): A tensor, or what holds tensors, see
            :func:`full_precision`.

    Returns:
        Any: The same, with no floating-point tensor below float32; itself
        where it is of another kind.
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
    """Call a module in float32 at least, that its results do not tie.

    For what results are sorted by: in half precision the scores of near
    candidates are equal, and what is chosen is chance.

    Args:
        module (nn.Module): The module, whose weights may be of half
            precision.
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
    """Bring a tensor to the precision of a module's weights.

    Encoded positions are float32 whatever the model is; weights of half
    precision take nothing else but their own. Under autocast weights are
    float32, too.

    Args:
        tensor (Tensor): Of any shape.
        module (nn.Module): Takes the tensor.

    Returns:
        Tensor: Has the same shape.
    """
    return tensor.to(next(module.parameters()).dtype)


def _first_tensor(value: Any) -> Tensor | None:
    """Find a tensor, which tells the device."""
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
