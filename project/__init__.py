# Copyright (c) mmdetr authors. All rights reserved.
"""Strong DETRs for MMDetection 3.x.

Importing this package registers its detectors, heads, losses, assigners and
runner with mmdet; a config does so by::

    custom_imports = dict(imports=['project'], allow_failed_imports=False)
"""

from .utils.environment import can_register
from .version import __version__

__all__ = ['__version__']

if can_register():
    from . import datasets, engine, models
    from .utils.compat import allow_mmengine_checkpoints

    __all__ += ['datasets', 'engine', 'models']

    allow_mmengine_checkpoints()
