# Copyright (c) mmdetr authors. All rights reserved.
from .dc5_resnet import DC5ResNet

__all__ = ['DC5ResNet']
