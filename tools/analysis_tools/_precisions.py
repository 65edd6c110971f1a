# Copyright (c) mmdetr authors. All rights reserved.
"""Trainings in float32, bf16 and fp16, on the CPU as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn

from project.engine.optim_wrappers import DETRAmpOptimWrapper
from project.engine.runner.distributed import has_accelerator

_DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}
_ROUNDING = 2.0**-20  # a few times the rounding of float32


def set_precision(config: Config, precision: str) -> None:
    """Let a config train in a precision.

    Args:
        config: Its ``optim_wrapper`` is changed.
        precision: ``'fp16'``, ``'bf16'``; everything else is float32.
    """
    if precision in _DTYPES:
        is_slow = precision == 'fp16' and not has_accelerator()
        config.optim_wrapper.type = (
            'SlowFP16OptimWrapper' if is_slow else 'AmpOptimWrapper'
        )
        if not is_slow:
            config.optim_wrapper.dtype = _DTYPES[precision]


@OPTIM_WRAPPERS.register_module()
class SlowFP16OptimWrapper(DETRAmpOptimWrapper):
    """fp16 with a loss scaler on a CPU, for which it is far too slow.

    ``AmpOptimWrapper`` refuses that; the rounding and the range of fp16 can
    be seen all the same.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype='bfloat16', **kwargs)
        self.precision = 'fp16'
        self.loss_scaler = torch.amp.GradScaler('cpu')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute under autocast in fp16, not in bf16 around it."""
        with (
            super().optim_context(model),
            torch.autocast('cpu', torch.float16),
        ):
            yield


class NoteLosses(Hook):
    """Keeps the loss of each step in ``losses``."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the loss of a step."""
        self.losses.append(float((outputs or {})['loss']))


class RoundWeights(Hook):
    """Changes the initial weights by about as much as rounding does."""

    def before_train(self, runner: Runner) -> None:
        """Multiply each weight by nearly one."""
        generator = torch.Generator().manual_seed(0)
        for parameter in runner.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data *= 1 + _ROUNDING * noise.to(parameter)
