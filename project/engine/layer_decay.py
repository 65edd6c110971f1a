# Copyright (c) mmdetr authors. All rights reserved.
"""Smaller learning rates for the early layers of a pretrained backbone."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from project.utils.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with layer-wise decay in the backbone.

    Besides everything else in ``paramwise_cfg``, ``layer_decay`` multiplies
    the learning rate of the backbone's last layer by itself once, of the one
    before twice, and so on down to the stem, as in BEiT and ViTDet. A
    multiplier of ``custom_keys`` applies as well. mmdet's
    ``LearningRateDecayOptimizerConstructor`` knows the names of its own
    ConvNeXt alone, and takes no ``custom_keys``.

    The backbone numbers its layers by ``layer_ids()``, as ``TimmBackbone``
    does.

    Args:
        optim_wrapper_cfg (dict): As in mmengine.
        paramwise_cfg (dict): As in mmengine, with ``layer_decay``, above 0
            and at most 1.

    Raises:
        UserError: If ``layer_decay`` is missing or out of range.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        decay = self.paramwise_cfg.get('layer_decay')
        if not isinstance(decay, int | float) or not 0 < decay <= 1:
            raise UserError(
                f'optim_wrapper.paramwise_cfg.layer_decay is {decay!r}; '
                'LayerDecayOptimWrapperConstructor expects a number above 0 '
                'and at most 1, such as 0.8.'
            )
        self.layer_decay = float(decay)

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: Any = None,
    ) -> None:
        """Add the groups of all parameters; see mmengine.

        Raises:
            UserError: If the backbone does not number its layers.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        backbone: Any = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'layer_ids'):
            raise UserError(
                'optim_wrapper.constructor='
                "'LayerDecayOptimWrapperConstructor' needs a backbone that "
                'numbers its layers, such as TimmBackbone; '
                f'{type(backbone).__name__} does not.'
            )
        layers = backbone.layer_ids()
        top = max(layers.values()) + 1
        scales = {
            id(parameter): self.layer_decay ** (top - layers[name])
            for name, parameter in backbone.named_parameters()
        }
        for group in params:
            scale = scales.get(id(group['params'][0]), 1)
            group['lr'] = group.get('lr', self.base_lr) * scale
