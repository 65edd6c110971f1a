# Copyright (c) mmdetr authors. All rights reserved.
from .detr_runner import DETRRunner
from .resolve import resolve_config

__all__ = ['DETRRunner', 'resolve_config']
