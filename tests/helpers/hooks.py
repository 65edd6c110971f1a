"""Hooks that watch or disturb a training in a process of its own."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor


@HOOKS.register_module()
class RecordLosses(Hook):
    """Writes the losses of each process to ``losses_<rank>.jsonl``."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        losses = {name: value.item() for name, value in outputs.items()}
        path = Path(runner.work_dir) / f'losses_{runner.rank}.jsonl'
        with path.open('a') as file:
            file.write(json.dumps(losses) + '\n')


@HOOKS.register_module()
class KillItself(Hook):
    """Ends the process before iteration ``KILL_AT``, as ``kill -9`` does."""

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        if os.environ.get('KILL_AT') == str(runner.iter):
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class BreakStep(Hook):
    """Has a layer give NaN from iteration ``NAN_AT`` on, on one rank."""

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        is_here = os.environ.get('NAN_RANK', '0') == str(runner.rank)
        if is_here and os.environ.get('NAN_AT') == str(runner.iter):
            model = runner.model
            model = model.module if is_model_wrapper(model) else model
            model.encoder.layers[0].norms[1].register_forward_hook(
                lambda module, inputs, output: output * torch.nan
            )


@HOOKS.register_module()
class RecordNoise(Hook):
    """Writes what denoising draws to ``noise_<rank>.pth``."""

    def before_train(self, runner: Runner) -> None:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        generator = model.dn_query_generator
        draw = generator.draw_noise
        self.noise: list[Tensor] = []
        self.start = {
            name: weight.clone() for name, weight in model.named_parameters()
        }

        def watched(*args: Any) -> Any:
            noise = draw(*args)
            self.noise.append(noise.label_rand)
            return noise

        generator.draw_noise = watched

    def after_train(self, runner: Runner) -> None:
        path = Path(runner.work_dir) / f'noise_{runner.rank}.pth'
        torch.save(dict(start=self.start, noise=self.noise), path)


def read_losses(work_dir: Path, rank: int) -> list[dict[str, float]]:
    """Read what :class:`RecordLosses` wrote, one dict for each iteration."""
    lines = (work_dir / f'losses_{rank}.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]
