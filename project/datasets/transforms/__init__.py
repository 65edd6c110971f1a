# Copyright (c) mmdetr authors. All rights reserved.
from .detr_resize import DETRResize, size_within

__all__ = ['DETRResize', 'size_within']
