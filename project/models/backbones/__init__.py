# Copyright (c) mmdetr authors. All rights reserved.
from .dc5_resnet import DC5ResNet
from .timm_backbone import TimmBackbone

__all__ = ['DC5ResNet', 'TimmBackbone']
