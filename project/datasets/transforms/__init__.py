# Copyright (c) mmdetr authors. All rights reserved.
from .any_depth_resize import AnyDepthResize
from .detr_resize import DETRResize, size_within
from .region_copy_paste import LoadRegionAnnotations, RegionCopyPaste

__all__ = [
    'AnyDepthResize',
    'DETRResize',
    'LoadRegionAnnotations',
    'RegionCopyPaste',
    'size_within',
]
