# Copyright (c) mmdetr authors. All rights reserved.
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed

_DATA, _STEP = 0, 1


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seeds all random number generators at each step by its iteration.

    Denoising noise, dropout and (without dataloader workers) augmentations of
    iteration N are then the same in a resumed training as in one that never
    stopped, whatever was drawn in between, for instance during validation.
    Checkpoints need no generator states. Ranks draw different numbers if
    ``randomness.diff_rank_seed`` is set.

    Seeded are the generators of Python, NumPy and PyTorch on all devices, and
    those that modules of the model own. ``DETRRunner`` adds this hook to every
    training.
    """

    # The last hook before the step, and before the next batch is loaded.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._own: list[tuple[torch.Generator, int]] = []
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Find the generators that modules of the model own."""
        self._is_training = True
        self._own = [
            (value, value.initial_seed())
            for module in runner.model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Generator)
        ]

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the loading of an epoch's first batch."""
        self._seed(runner.seed, runner.iter, _DATA)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Seed the step."""
        self._seed(runner.seed, runner.iter, _STEP)
        for generator, seed in self._own:
            generator.manual_seed(_mixed(seed, runner.iter, _STEP))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Seed the loading of the next batch."""
        self._seed(runner.seed, runner.iter + 1, _DATA)

    def after_val(self, runner: Runner) -> None:
        """Seed the loading of the next batch again."""
        if self._is_training:
            self._seed(runner.seed, runner.iter, _DATA)

    def after_train(self, runner: Runner) -> None:
        """Stop seeding."""
        self._is_training = False

    @staticmethod
    def _seed(seed: int, iteration: int, stage: int) -> None:
        """Seed the global generators."""
        set_random_seed(_mixed(seed, iteration, stage))


def _mixed(seed: int, iteration: int, stage: int) -> int:
    """Hash seed, iteration and stage into one seed."""
    sequence = np.random.SeedSequence((seed, iteration, stage))
    return int(sequence.generate_state(1)[0])
