# Copyright (c) mmdetr authors. All rights reserved.
"""Repairs for the age of mmengine 0.10 where it bites a user.

The other known fault, ``pkg_resources`` missing from setuptools 82, cannot be
repaired from here: configs with ``mmdet::`` bases fail before anything is
imported. ``pyproject.toml`` therefore asks for an older setuptools and
``python -m project.env`` says so where it is too new.
"""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

try:
    from numpy._core import multiarray
except ImportError:
    from numpy.core import multiarray  # type: ignore[no-redef]  # numpy 1

_NUMPY_CORES = ('numpy._core', 'numpy.core')
_NUMBER_CODES = '?' + np.typecodes['AllInteger'] + np.typecodes['Float']


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load`` read mmengine's checkpoints with ``weights_only``.

    Since torch 2.6 ``torch.load`` restores nothing but tensors and plain
    containers unless told otherwise, and mmengine saves the history of the
    logged values beside the weights. This adds what that history is made of
    (number arrays and ``HistoryBuffer``) to the types that torch accepts; a
    file holding anything else is still refused. Calling it again changes
    nothing.
    """
    torch.serialization.add_safe_globals(mmengine_types())


def mmengine_types() -> list[Any]:
    """List what mmengine's checkpoints hold beside tensors and containers.

    Returns:
        list: As ``torch.serialization.add_safe_globals`` takes it.
    """
    renamed = [
        (getattr(multiarray, name), f'{core}.multiarray.{name}')
        for core in _NUMPY_CORES
        for name in ('_reconstruct', 'scalar')
    ]
    number_types = {type(np.dtype(code)) for code in _NUMBER_CODES}
    return [
        HistoryBuffer,
        (_statistics_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *number_types,
        *renamed,
    ]


def _statistics_method(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is read.

    A ``HistoryBuffer`` is pickled with its statistics methods, each as a
    call ``getattr(HistoryBuffer, name)``. The real ``getattr`` would let a
    file reach, and replace, any object of the interpreter.

    Raises:
        UnpicklingError: If anything but a method of ``HistoryBuffer`` is
            asked for.
    """
    methods = vars(HistoryBuffer) if owner is HistoryBuffer else {}
    if name.startswith('_') or not inspect.isfunction(methods.get(name)):
        raise pickle.UnpicklingError(
            f'The checkpoint looks up {name!r} of {owner!r}, which no '
            'checkpoint written by mmengine does.'
        )
    return methods[name]
