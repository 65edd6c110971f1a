# Copyright (c) mmdetr authors. All rights reserved.
from .runner import DETRRunner

__all__ = ['DETRRunner']
