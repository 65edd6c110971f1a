# Copyright (c) mmdetr authors. All rights reserved.
"""How layers start that the official codes make otherwise than mmdet."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
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
        parts: Iterator[Any] = module.modules()  # each has its own methods
        for part in parts:
            if type(part).__name__ in self.layer:
                part.reset_parameters()
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        """Tell mmengine's log what was done."""
        return f'{type(self).__name__}: as PyTorch makes them'


class SelfInitialized(BaseModule):
    """Module whose ``init_weights`` has the last word.

    A transformer calls it after it has drawn all its matrices.
    """


def cloned_layers(
    build: Callable[[], nn.Module], num_layers: int
) -> ModuleList:
    """Make layers that start as copies of one another.

    Args:
        build (Callable): Makes a layer.
        num_layers (int): How many layers.

    Returns:
        ModuleList: The layers.
    """
    layers = ModuleList(build() for _ in range(num_layers))
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    return layers


@torch.no_grad()
def share_vectors(layers: Sequence[nn.Module]) -> None:
    """Let all layers start with the vectors of the first, biases above all.

    The official codes clone one layer and draw only matrices anew.

    Args:
        layers (Sequence[nn.Module]): Layers that are alike; later ones may
            lack a part. Changed in place.
    """
    first = dict(layers[0].named_parameters())
    for layer in layers[1:]:
        for name, parameter in layer.named_parameters():
            if parameter.dim() < 2:
                parameter.copy_(first[name])
