# Copyright (c) mmdetr authors. All rights reserved.
from .any_depth_resize import AnyDepthResize
from .detr_resize import DETRResize, size_within

__all__ = ['AnyDepthResize', 'DETRResize', 'size_within']
