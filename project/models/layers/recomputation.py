# Copyright (c) mmdetr authors. All rights reserved.
"""Activation checkpointing without fairscale."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

import torch
from mmdet.models.layers.transformer import DetrTransformerEncoder
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from project.utils.errors import UserError
from project.utils.settings import Range, read_setting


def recompute_layers(layers: Sequence[nn.Module], num_layers: int) -> None:
    """Recompute the first layers in the backward pass to save memory.

    What such a layer computes in between is not kept in training but worked
    out again when its gradient is needed: about a third more time for the
    memory of ``num_layers`` layers. Outputs, gradients, random numbers,
    statistics of torch's norms and the names of parameters and submodules stay
    as they are. mmdet's ``num_cp`` does the same through fairscale, which is
    no longer maintained.

    Args:
        layers (Sequence[nn.Module]): Layers, called in order; changed in
            place.
        num_layers (int): How many of them, 0 to ``len(layers)``.
    """
    known = Range(0, len(layers), meaning='a number of its layers')
    read_setting(Annotated[int, known], num_layers, 'num_cp')
    for layer in layers[:num_layers]:
        # On the instance and not by a wrapping module: state dicts, parameter
        # groups by name and layer.attribute must not notice.
        layer.forward = partial(_recomputed_forward, layer)


class RecomputedEncoder(DetrTransformerEncoder):
    """Encoder of mmdet whose ``num_cp`` is checked in a sentence.

    To be put before mmdet's own class of an encoder; mmdet asserts it.

    Args:
        num_layers (int): Layers.
        num_cp (int): How many layers are recomputed; less than 1 are none.
            Defaults to -1.
        *args, **kwargs: As in mmdet's ``DetrTransformerEncoder``.

    Raises:
        UserError: If there are fewer layers.
    """

    def __init__(
        self, num_layers: int, *args: Any, num_cp: int = -1, **kwargs: Any
    ) -> None:
        if num_cp > num_layers:
            raise UserError(
                f'model.encoder.num_cp={num_cp} layers cannot be '
                f'checkpointed: there are num_layers={num_layers}'
            )
        super().__init__(num_layers, *args, num_cp=num_cp, **kwargs)


def _recomputed_forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the layer's own ``forward``, under checkpointing in training."""
    forward = partial(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _WithoutStatistics(layer)),
        **kwargs,
    )


class _WithoutStatistics:
    """Keeps norms from counting a batch that they have counted.

    It can be entered again: a graph that is kept is recomputed each time.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.norms: list[tuple[_NormBase, float | None, Any]] = []

    def __enter__(self) -> None:
        self.norms = [
            (module, module.momentum, module.num_batches_tracked)
            for module in self.layer.modules()
            if isinstance(module, _NormBase)
            and module.training
            and module.track_running_stats
        ]
        for norm, _, count in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, count.clone()

    def __exit__(self, *error: object) -> None:
        for norm, momentum, count in self.norms:
            norm.momentum, norm.num_batches_tracked = momentum, count


def recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function and keep of it only its inputs and results.

    What it computes in between is worked out again when its gradient is
    needed. Random numbers are the same in both passes.

    Args:
        function (Callable): Must give the same results for the same inputs.
        *args, **kwargs: Its arguments.

    Returns:
        Any: Its results.
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return checkpoint(function, *args, use_reentrant=False, **kwargs)
