# Copyright (c) mmdetr authors. All rights reserved.
"""Initialization of layers where the official codes differ from mmdet."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
from mmengine.model.weight_init import BaseInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn


@WEIGHT_INITIALIZERS.register_module()
class PyTorchInit(BaseInit):
    """Restores PyTorch's default initialization, for an ``init_cfg``.

    mmcv's ``ConvModule`` has drawn other weights by then.

    Args:
        layer (str | list[str]): Class names of the layers.
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
        """Describe the initialization in mmengine's log."""
        return f'{type(self).__name__}: as PyTorch makes them'


class SelfInitialized(BaseModule):
    """Module whose ``init_weights`` a transformer calls last.

    That is, after the transformer has initialized all its matrices.
    """


def xavier_init_matrices(*modules: nn.Module) -> None:
    """Initialize all parameters with two or more axes by Xavier.

    Args:
        *modules (nn.Module): Modules, changed in place.
    """
    for module in modules:
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


def cloned_layers(
    build: Callable[[], nn.Module], num_layers: int
) -> ModuleList:
    """Build layers that start as copies of the first.

    Args:
        build (Callable): Builds a layer.
        num_layers (int): Number of layers.

    Returns:
        ModuleList: The layers.
    """
    layers = ModuleList(build() for _ in range(num_layers))
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    return layers


@torch.no_grad()
def share_vectors(layers: Sequence[nn.Module]) -> None:
    """Copy the vectors of the first layer, mainly biases, to all layers.

    The official codes clone one layer and reinitialize only matrices.

    Args:
        layers (Sequence[nn.Module]): Layers of one architecture; later ones
            may lack a part. Changed in place.
    """
    first = dict(layers[0].named_parameters())
    for layer in layers[1:]:
        for name, parameter in layer.named_parameters():
            if parameter.dim() < 2:
                parameter.copy_(first[name])
