# Copyright (c) mmdetr authors. All rights reserved.
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed

_DATA, _STEP = 0, 1


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seeds the random numbers of a training step by its iteration.

    Noise, dropout and augmentations (those of the training process itself,
    without workers) of iteration N are then the same in a training that was
    resumed as in one that never stopped, whatever was drawn in between, such
    as by a validation, and no state of a generator need be in the
    checkpoint. Ranks differ as ``randomness.diff_rank_seed`` says: their
    seeds do.

    Seeded are Python's, NumPy's and PyTorch's generators, those of all
    devices, and generators that modules of the model keep for themselves.
    ``DETRRunner`` adds this hook to every training.
    """

    # Last before a step, and before the next batch is loaded.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._own: list[tuple[torch.Generator, int]] = []
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Find the generators of the model's modules.

        Args:
            runner (Runner): The runner.
        """
        self._is_training = True
        self._own = [
            (value, value.initial_seed())
            for module in runner.model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Generator)
        ]

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the loading of an epoch's first batch.

        Args:
            runner (Runner): The runner.
        """
        self._seed(runner.seed, runner.iter, _DATA)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Seed the step.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (object): Unused.
        """
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
        """Seed the loading of the next batch.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (object): Unused.
            outputs (dict): Unused.
        """
        self._seed(runner.seed, runner.iter + 1, _DATA)

    def after_val(self, runner: Runner) -> None:
        """Seed the loading of the next batch again.

        Args:
            runner (Runner): The runner.
        """
        if self._is_training:
            self._seed(runner.seed, runner.iter, _DATA)

    def after_train(self, runner: Runner) -> None:
        """Seed no more.

        Args:
            runner (Runner): The runner.
        """
        self._is_training = False

    @staticmethod
    def _seed(seed: int, iteration: int, stage: int) -> None:
        """Seed the generators that all share."""
        set_random_seed(_mixed(seed, iteration, stage))


def _mixed(seed: int, iteration: int, stage: int) -> int:
    """Make of three numbers one that no simple rule connects to them."""
    sequence = np.random.SeedSequence((seed, iteration, stage))
    return int(sequence.generate_state(1)[0])
