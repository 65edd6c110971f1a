# Copyright (c) mmdetr authors. All rights reserved.
"""Types in mmengine's checkpoints that ``torch.load`` has to accept.

Another incompatibility of mmengine 0.10, ``pkg_resources`` missing from
setuptools 82, cannot be fixed here: configs with ``mmdet::`` bases fail before
anything is imported. ``pyproject.toml`` therefore requires an older
setuptools, and ``python -m project.env`` reports one that is too new.
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

    Since torch 2.6 ``torch.load`` by default accepts only tensors and plain
    containers, but mmengine also saves the history of the logged values. This
    adds the types of that history (number arrays and ``HistoryBuffer``) to
    those that torch accepts; other types are still refused. Idempotent.
    """
    torch.serialization.add_safe_globals(mmengine_types())


def mmengine_types() -> list[Any]:
    """Types in mmengine's checkpoints besides tensors and containers.

    Returns:
        list: Argument of ``torch.serialization.add_safe_globals``.
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
    """Replaces ``getattr`` while a checkpoint is loaded.

    A ``HistoryBuffer`` is pickled with its statistics methods, each as a
    call ``getattr(HistoryBuffer, name)``. With the real ``getattr`` a file
    could reach, and replace, any object of the interpreter.

    Raises:
        UnpicklingError: For anything but a method of ``HistoryBuffer``.
    """
    methods = vars(HistoryBuffer) if owner is HistoryBuffer else {}
    if name.startswith('_') or not inspect.isfunction(methods.get(name)):
        raise pickle.UnpicklingError(
            f'The checkpoint looks up {name!r} of {owner!r}, which no '
            'checkpoint written by mmengine does.'
        )
    return methods[name]
