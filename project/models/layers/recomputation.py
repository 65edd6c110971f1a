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
    """Use activation checkpointing in the first layers.

    The activations of such a layer are recomputed in the backward pass: about
    a third more time for the memory of ``num_layers`` layers. Outputs,
    gradients, random numbers, running statistics of torch's norms and the
    names of parameters and submodules do not change. mmdet's ``num_cp`` needs
    fairscale for this, which is no longer maintained.

    Args:
        layers (Sequence[nn.Module]): Layers, changed in place.
        num_layers (int): Number of checkpointed layers, 0 to
            ``len(layers)``.
    """
    known = Range(0, len(layers), meaning='a number of its layers')
    read_setting(Annotated[int, known], num_layers, 'num_cp')
    for layer in layers[:num_layers]:
        # No wrapping module: it would change the names in state dicts and
        # parameter groups.
        layer.forward = partial(_recomputed_forward, layer)


class RecomputedEncoder(DetrTransformerEncoder):
    """Encoder of mmdet that checks ``num_cp``, which mmdet only asserts.

    Args:
        num_layers (int): Number of layers.
        num_cp (int): Number of checkpointed layers; none if below 1.
            Defaults to -1.
        *args, **kwargs: As in mmdet's ``DetrTransformerEncoder``.

    Raises:
        UserError: If ``num_cp`` is larger than ``num_layers``.
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
    """Call the layer's ``forward``, in training with checkpointing."""
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
    """Keeps norms from updating their statistics again on recomputation.

    Reentrant, since a retained graph is recomputed several times.
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
    """Call a function with activation checkpointing.

    Args:
        function (Callable): A deterministic function.
        *args, **kwargs: Its arguments.

    Returns:
        Any: Its results.
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return checkpoint(function, *args, use_reentrant=False, **kwargs)
