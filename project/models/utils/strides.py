# Copyright (c) mmdetr authors. All rights reserved.
import itertools

import torch
from torch import nn
from torch.func import functional_call

_SIZE = 512


@torch.no_grad()
def level_strides(
    backbone: nn.Module, neck: nn.Module | None = None
) -> tuple[int, ...] | None:
    """Find the strides of the feature levels without computing them.

    The shapes of tensors without values are followed through the modules.

    Args:
        backbone (nn.Module): Gives the feature maps of images.
        neck (nn.Module, optional): What turns them into levels.

    Returns:
        tuple[int, ...] | None: Pixels of the input for each point of a
        level; None where a module has an operation that needs values.
    """
    parts = [part for part in (backbone, neck) if part is not None]
    modules = [module for part in parts for module in part.modules()]
    modes = [module.training for module in modules]
    feats = torch.empty(1, 3, _SIZE, _SIZE, device='meta')
    try:
        for module in modules:  # not by eval(), which some override
            module.training = False
        for part in parts:
            tensors = itertools.chain(
                part.named_parameters(), part.named_buffers()
            )
            without_values = {name: t.to('meta') for name, t in tensors}
            feats = functional_call(part, without_values, (feats,))
        return tuple(_SIZE // feat.shape[-1] for feat in feats)
    except Exception:  # what a backbone raises without values, or at this size
        return None
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
