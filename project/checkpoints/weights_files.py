# Copyright (c) mmdetr authors. All rights reserved.
"""Read foreign checkpoints without running their code; write our own."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from project.checkpoints.addresses import local_file
from project.checkpoints.safe_load import safe_load
from project.utils.errors import UserError

# Where the weights may lie inside a checkpoint.
_WRAPPERS = ('model', 'state_dict')


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint from anywhere.

    Args:
        path (str | PathLike): The file, or its address.

    Returns:
        dict[str, Tensor]: Name to tensor, on the CPU, without a ``module.``
        prefix. Number arrays become tensors.

    Raises:
        UserError: If there is no such file, it is damaged, holds objects
            that could run code (see ``safe_load``), or no weights.
    """
    checkpoint = safe_load(local_file(path), mmap=True)
    weights = checkpoint
    for key in _WRAPPERS:
        if isinstance(checkpoint, Mapping) and key in checkpoint:
            weights = checkpoint[key]
            break
    if not isinstance(weights, Mapping) or not weights:
        raise UserError(
            f'{path} holds no weights: expected a dictionary of tensors, '
            f'alone or under {" or ".join(map(repr, _WRAPPERS))}'
        )
    tensors = {}
    for name, value in weights.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
            value = torch.from_numpy(value)
        if not isinstance(value, Tensor) or not isinstance(name, str):
            kind = type(value).__name__
            raise UserError(
                f'{path} has a {kind} as {name!r} among its weights; '
                'expected tensors alone, by their names'
            )
        tensors[name] = value
    return _without_prefix(tensors)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, complete or not at all.

    Args:
        checkpoint (dict): What ``torch.save`` takes, with the weights under
            ``state_dict``.
        path (Path): The file; missing folders above it are made.

    Raises:
        UserError: If it cannot be written.
    """
    weights = {k: _own(v) for k, v in checkpoint['state_dict'].items()}
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**checkpoint, 'state_dict': weights}, unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # torch's writer raises the other
        reason = getattr(error, 'strerror', None) or str(error)
        raise UserError(
            f'{path} cannot be written: {reason.splitlines()[0]}'
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix that DistributedDataParallel puts on all names."""
    prefix = 'module.'
    if all(name.startswith(prefix) for name in weights):
        return {k.removeprefix(prefix): v for k, v in weights.items()}
    return dict(weights)


def _own(tensor: Tensor) -> Tensor:
    """Copy a tensor that is a part of a larger memory.

    ``torch.save`` would write all of that memory.
    """
    used = tensor.numel() * tensor.element_size()
    return (
        tensor.clone() if tensor.untyped_storage().nbytes() > used else tensor
    )
