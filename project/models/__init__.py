# Copyright (c) mmdetr authors. All rights reserved.
from . import (
    backbones,
    data_preprocessors,
    dense_heads,
    detectors,
    losses,
    necks,
    task_modules,
)

__all__ = [
    'backbones',
    'data_preprocessors',
    'dense_heads',
    'detectors',
    'losses',
    'necks',
    'task_modules',
]
