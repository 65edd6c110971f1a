# Copyright (c) mmdetr authors. All rights reserved.
"""Applies ``fast_runtime`` to a model."""

import torch
from mmengine.model.efficient_conv_bn_eval import (
    turn_on_efficient_conv_bn_eval,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from project.preflight.fast_runtime import FastRuntime


def speed_up(model: nn.Module, settings: FastRuntime) -> None:
    """Speed up a model, with the same results except for rounding.

    Names and shapes of its weights stay the same as well.

    Args:
        model (nn.Module): A detector, before it is wrapped; changed in place.
        settings (FastRuntime): The settings.
    """
    backbone = getattr(model, 'backbone', None)
    if settings.tf32 and torch.cuda.is_available():
        torch.set_float32_matmul_precision('high')
    if not isinstance(backbone, nn.Module):
        return
    if settings.channels_last:
        # torch's annotations leave this argument out.
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.fold_norms and _norms_are_frozen(backbone):
        turn_on_efficient_conv_bn_eval(model, 'backbone')


def _norms_are_frozen(backbone: nn.Module) -> bool:
    """Whether its batch norms are frozen and can be folded.

    With recomputed blocks they cannot.
    """
    was_training = backbone.training
    backbone.train()  # of mmdet's it gives nothing back
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    trained = [
        norm
        for norm in norms
        if norm.training or any(p.requires_grad for p in norm.parameters())
    ]
    backbone.train(was_training)
    recomputes = any(
        getattr(module, 'with_cp', False) for module in backbone.modules()
    )
    return bool(norms) and not trained and not recomputes
