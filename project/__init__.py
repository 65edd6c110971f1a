# Copyright (c) mmdetr authors. All rights reserved.
"""Strong DETRs for MMDetection 3.x.

Importing this package registers its detectors, heads, losses, assigners and
runner with mmdet; a config does so by::

    custom_imports = dict(imports=['project'], allow_failed_imports=False)
"""

from . import models
from .version import __version__

__all__ = ['__version__', 'models']
