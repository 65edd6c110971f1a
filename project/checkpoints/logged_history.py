# Copyright (c) mmdetr authors. All rights reserved.
"""The history of logged values as tensors, for ``weights_only=True``.

mmengine pickles it as objects with numpy arrays, which ``torch.load`` refuses
since torch 2.6 unless they are declared safe: in mmdet's ``publish_model.py``
and in inferencers without this package.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

_PARTS = ('values', 'counts', 'max_length')


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Convert a checkpoint to plain tensors, numbers and text.

    Args:
        checkpoint (dict): Checkpoint to be saved by mmengine; changed in
            place, but not the objects in it.
    """
    for part in ('meta', 'message_hub'):
        if part in checkpoint:
            checkpoint[part] = _plain(checkpoint[part])


def restore_history(checkpoint: Mapping[str, Any]) -> None:
    """Undo :func:`make_plain` for the history that mmengine resumes.

    Args:
        checkpoint (Mapping[str, Any]): Loaded checkpoint, changed in place.
    """
    hub = checkpoint.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, Mapping) else None
    if not isinstance(scalars, dict):
        return
    for name, value in scalars.items():
        if isinstance(value, dict) and tuple(value) == _PARTS:
            scalars[name] = HistoryBuffer(
                value['values'].cpu().numpy(),
                value['counts'].cpu().numpy(),
                value['max_length'],
            )


def _plain(value: Any) -> Any:
    """Copy a value; replace histories and numpy's numbers in it."""
    if isinstance(value, HistoryBuffer):
        values, counts = map(torch.from_numpy, value.data)
        parts = values.clone(), counts.clone(), value.max_length
        return dict(zip(_PARTS, parts, strict=True))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value
