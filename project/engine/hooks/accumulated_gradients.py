# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_KEY = 'accumulated_gradients'


class AccumulatedGradients(Hook):
    """Saves and restores gradients that are accumulated for the next step.

    With ``accumulative_counts`` N, a signal or the end of an epoch may come
    after any of N forward passes. A training that resumes there would lose
    the gradients of those before, as mmengine's does.

    The processes of DDP have gradients of their own between two steps. Their
    mean is saved, and restored in each of them, which gives the same step.
    Gradients of weights that are split (``fully_shard``) are not saved. What
    is lost is told when the training resumes.
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None

    def before_save(self, runner: Runner) -> None:
        """Gather the gradients; all processes have to call it."""
        wrapper = runner.optim_wrapper
        self._saved = None
        if _is_between_steps(wrapper):
            gradients = _gather(_trained(runner))
            counts = wrapper._accumulative_counts
            self._saved = dict(counts=counts, gradients=gradients)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Put them into a checkpoint from which a training can resume."""
        saved, self._saved = self._saved, None
        if saved and saved['gradients'] and 'optimizer' in checkpoint:
            checkpoint[_KEY] = saved

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Take them from a checkpoint."""
        self._saved = checkpoint.get(_KEY)

    def before_train(self, runner: Runner) -> None:
        """Restore them, or warn that they are lost."""
        saved, self._saved = self._saved or {}, None
        wrapper = runner.optim_wrapper
        if not _is_between_steps(wrapper):
            return
        counts = wrapper._accumulative_counts
        if saved.get('counts') != counts:
            done = wrapper._inner_count % counts
            runner.logger.warning(
                f'The next step lacks the gradients of {done} of its {counts} '
                'forward passes, which the checkpoint does not contain.'
            )
            return
        for name, value in _trained(runner).items():
            if name in saved['gradients']:
                value.grad = saved['gradients'][name].to(value)


def _is_between_steps(wrapper: Any) -> bool:
    """Whether gradients are accumulated for a step that is still to come."""
    return isinstance(wrapper, OptimWrapper) and not wrapper.should_update()


def _trained(runner: Runner) -> dict[str, nn.Parameter]:
    """The trained parameters by their names in checkpoints."""
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    named = model.named_parameters()
    return {name: value for name, value in named if value.requires_grad}


def _gather(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Average the gradients over all processes, and keep them in the first."""
    if any(isinstance(value, DTensor) for value in parameters.values()):
        return {}
    there = torch.tensor([x.grad is not None for x in parameters.values()])
    there = there.int()
    all_reduce(there, 'max')
    gradients = {}
    for is_there, (name, value) in zip(there, parameters.items(), strict=True):
        if not is_there:
            continue
        mean = torch.zeros_like(value) if value.grad is None else value.grad
        mean = mean.detach().clone()
        all_reduce(mean, 'mean')
        if is_main_process():
            gradients[name] = mean.cpu()
    return gradients
