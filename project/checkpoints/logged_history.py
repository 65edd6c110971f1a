# Copyright (c) mmdetr authors. All rights reserved.
"""The history of logged values as tensors, which every ``torch.load`` reads.

mmengine pickles it as objects of its own with numpy arrays in them. Since
torch 2.6 nothing reads such a checkpoint that has not declared them safe:
neither mmdet's ``publish_model.py`` nor an inferencer without this package.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

_PARTS = ('values', 'counts', 'max_length')


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Write what is no tensor, number or text of a checkpoint as such.

    Args:
        checkpoint (dict): What mmengine is about to save; it is changed, the
            objects in it are not.
    """
    for part in ('meta', 'message_hub'):
        if part in checkpoint:
            checkpoint[part] = _plain(checkpoint[part])


def restore_history(checkpoint: Mapping[str, Any]) -> None:
    """Undo :func:`make_plain` where mmengine goes on with a history.

    Args:
        checkpoint (Mapping[str, Any]): What was loaded; is changed. One that
            mmengine wrote itself stays as it is.
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
    """Copy a value with the histories and numpy's numbers in it replaced."""
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
