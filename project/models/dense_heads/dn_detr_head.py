# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmcv.cnn import Linear
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from mmengine.model import bias_init_with_prob, constant_init
from torch import nn

from .denoising_head import DenoisingHead


@MODELS.register_module()
class DNDETRHead(DenoisingHead):
    """Head of `DN-DETR <https://arxiv.org/abs/2203.01305>`_.

    The branches of mmdet's ``DABDETRHead``, shared by all decoder layers, and
    the denoising losses.

    Args:
        zero_init_reg (bool): Whether the box branch is initialized to
            predict the references. Defaults to True.
        *args, **kwargs: As in :class:`DenoisingHead`.
    """

    def __init__(
        self, *args: Any, zero_init_reg: bool = True, **kwargs: Any
    ) -> None:
        self.zero_init_reg = zero_init_reg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize the branches."""
        self.fc_cls = Linear(self.embed_dims, self.cls_out_channels)
        self.fc_reg = MLP(self.embed_dims, self.embed_dims, 4, 3)

    def init_weights(self) -> None:
        """Initialize with a prior probability of 0.01 for every class."""
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(0.01))
        if self.zero_init_reg:
            constant_init(self.fc_reg.layers[-1], 0, bias=0)

    def branches(self, layer_id: int) -> tuple[nn.Module, nn.Module]:
        """Class and box branch, shared by all layers."""
        return self.fc_cls, self.fc_reg
