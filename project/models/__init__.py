# Copyright (c) mmdetr authors. All rights reserved.
from . import dense_heads, detectors, losses, task_modules

__all__ = ['dense_heads', 'detectors', 'losses', 'task_modules']
