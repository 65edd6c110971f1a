# Copyright (c) mmdetr authors. All rights reserved.
"""Finds tensors that hold NaN or infinity."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from project.utils.errors import UserError

_NUM_NAMES_SHOWN = 3


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that hold NaN or infinity.

    The host waits for the device once.

    Args:
        tensors (Mapping[str, Tensor]): By their names, on one device or
            several. Those of whole numbers are finite, and so is what else
            a module keeps in its state.

    Returns:
        list[str]: The names, in their order.
    """
    floats = {
        name: tensor.detach()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and tensor.numel()
    }
    if not floats:
        return []
    device = next(iter(floats.values())).device
    flags = [x.isfinite().all().to(device) for x in floats.values()]
    found = torch.stack(flags).tolist()
    return [
        name
        for name, is_finite in zip(floats, found, strict=True)
        if not is_finite
    ]


def named(names: Sequence[str]) -> str:
    """List a few names and count the others.

    Args:
        names (Sequence[str]): At least one.

    Returns:
        str: Such as ``'a, b, c and 4 more'``.
    """
    more = len(names) - _NUM_NAMES_SHOWN
    shown = ', '.join(names[:_NUM_NAMES_SHOWN])
    return f'{shown} and {more} more' if more > 0 else shown


def check_finite(
    tensors: Mapping[str, Tensor], what: str, consequence: str
) -> None:
    """Raise if a tensor holds NaN or infinity.

    Args:
        tensors (Mapping[str, Tensor]): By their names.
        what (str): What they belong to, for the message.
        consequence (str): What therefore happens, for the message.

    Raises:
        UserError: If there is one.
    """
    names = not_finite(tensors)
    if names:
        raise UserError(
            f'{what} holds NaN or infinity in {len(names)} of {len(tensors)} '
            f'tensors ({named(names)}): {consequence}.'
        )
