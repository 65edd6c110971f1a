# Copyright (c) mmdetr authors. All rights reserved.
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
