# Copyright (c) mmdetr authors. All rights reserved.
"""Finds tensors with NaN or infinity."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from project.utils.errors import UserError, some_of

_Name = TypeVar('_Name', bound=Hashable)


def not_finite(tensors: Mapping[_Name, Tensor]) -> list[_Name]:
    """Names of the tensors with NaN or infinity.

    Synchronizes host and device once. Tensors that are split among processes
    take all of these, which get the same result.

    Args:
        tensors (Mapping): Tensors by name or index, on any devices. Integer
            tensors and other objects in a state dict count as finite.
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
    parts = [_local_part(x) for x in floats.values()]
    found = torch.stack([x.isfinite().all().to(device) for x in parts]).int()
    if any(hasattr(x, 'to_local') for x in floats.values()):
        all_reduce(found, 'min')
    return [
        name
        for name, is_finite in zip(floats, found.tolist(), strict=True)
        if not is_finite
    ]


def _local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, mostly all of it."""
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def check_finite(
    tensors: Mapping[str, Tensor], what: str, consequence: str
) -> None:
    """Raise if a tensor holds NaN or infinity.

    Args:
        tensors (Mapping[str, Tensor]): Tensors by name.
        what (str): Their owner, for the message.
        consequence (str): The consequence, for the message.
    """
    names = not_finite(tensors)
    if names:
        raise UserError(
            f'{what} holds NaN or infinity in {len(names)} of {len(tensors)} '
            f'tensors ({some_of(names)}): {consequence}.'
        )
