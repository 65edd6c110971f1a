# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS


@MODELS.register_module()
class DC5ResNet(ResNet):
    """ResNet-DC5: stride 16, with the last stage dilated as in torchvision.

    The official DETRs use torchvision's, in which the first block of the
    dilated stage keeps the dilation 1 of the stage before. mmdet's
    ``ResNet(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))`` dilates that
    block too, and gives other features with the same weights.

    Args:
        depth (int): 50, 101 or 152.
        **kwargs: As in mmdet's ``ResNet``, without strides and dilations.
    """

    def __init__(self, depth: int, **kwargs: Any) -> None:
        super().__init__(
            depth, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **kwargs
        )
        first_block = getattr(self, self.res_layers[-1])[0]
        first_block.conv2.dilation = first_block.conv2.padding = (1, 1)
