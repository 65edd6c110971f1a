# Copyright (c) mmdetr authors. All rights reserved.
"""Reads the weights of checkpoints."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from project.checkpoints.addresses import local_file
from project.checkpoints.comparison import named_tensors
from project.checkpoints.mmengine_loaders import read_from_anywhere
from project.checkpoints.safe_load import safe_load
from project.utils.errors import UserError

CONVERTER = 'python -m project convert'
# Keys under which checkpoints have their weights.
_WRAPPERS = ('model', 'state_dict')
# Names of weights in official repositories; mmdet has no module named
# transformer.
_OFFICIAL_NAMES = re.compile(r'(module\.)?(transformer\.|backbone\.0\.body\.)')


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint from a path or address.

    Returns:
        dict[str, Tensor]: Name to tensor, on the CPU, without a ``module.``
        prefix. Arrays become tensors.

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
    return named_tensors(tensors)


def loaded_weights(path: str) -> dict[str, Tensor]:
    """Read the weights that mmengine will load from a checkpoint.

    Args:
        path (str): A file or an address that mmengine can load from.

    Raises:
        UserError: If it cannot be read or has the names of an official
            repository.
    """
    return named_tensors(_weights(path, read_checkpoint(path)))


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Load a checkpoint, memory-mapped if it is a file.

    Args:
        path (str): A file or an address that mmengine can load from.

    Raises:
        UserError: If it does not exist, cannot be read or is no checkpoint.
    """
    checkpoint = read_from_anywhere(path)
    if not isinstance(checkpoint, Mapping):
        raise UserError(
            f'{path} holds a {type(checkpoint).__name__}; expected a '
            'checkpoint, which is a dict with state_dict.'
        )
    return checkpoint


def state_dict(path: str, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a checkpoint, found as mmengine does.

    Args:
        path (str): Path of the checkpoint, for the message.
        checkpoint (Mapping[str, Any]): Result of :func:`read_checkpoint`.

    Raises:
        UserError: If there is no dict with names of weights.
    """
    place = 'state_dict' if 'state_dict' in checkpoint else ''
    weights = checkpoint[place] if place else checkpoint
    if not isinstance(weights, Mapping):
        raise UserError(
            f'{path} has a {type(weights).__name__} as state_dict; expected '
            'a dict of tensors.'
        )
    if not all(isinstance(name, str) for name in weights):
        raise UserError(
            f'{path} has weights under {next(iter(weights))!r}; expected '
            'names of parameters.'
        )
    return weights


def _weights(path: str, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a checkpoint in mmdet's layout."""
    weights = state_dict(path, checkpoint)
    is_wrapped = isinstance(weights.get('model'), Mapping)
    if is_wrapped or any(map(_OFFICIAL_NAMES.match, weights)):
        raise UserError(
            f'{path} is in the layout of the official code, not of mmdet; '
            f'convert it first with {CONVERTER}.'
        )
    return weights
