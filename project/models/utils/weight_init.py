# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.model.weight_init import BaseInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn


@WEIGHT_INITIALIZERS.register_module()
class PyTorchInit(BaseInit):
    """Initializes layers as PyTorch does when it makes them.

    For an ``init_cfg``: mmcv's ``ConvModule`` has drawn other weights by
    then.

    Args:
        layer (str | list[str]): Names of the layers' classes.
    """

    def __init__(self, layer: str | list[str]) -> None:
        super().__init__(layer=layer)

    def __call__(self, module: nn.Module) -> None:
        """Initialize the layers in a module."""
        for part in module.modules():
            if type(part).__name__ in self.layer:
                part.reset_parameters()
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        """Tell mmengine's log what was done."""
        return f'{type(self).__name__}: as PyTorch makes them'
