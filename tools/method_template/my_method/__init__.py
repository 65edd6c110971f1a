"""MyMethod: what it does, in a line.

Importing this package registers its classes with mmdet; its configs do so by
their ``custom_imports``.
"""

from .detector import MyMethod
from .head import MyMethodHead
from .loss import MyMethodLoss

__all__ = ['MyMethod', 'MyMethodHead', 'MyMethodLoss']
