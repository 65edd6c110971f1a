# Copyright (c) mmdetr authors. All rights reserved.
from . import backbones, dense_heads, detectors, losses, task_modules

__all__ = [
    'backbones',
    'dense_heads',
    'detectors',
    'losses',
    'task_modules',
]
