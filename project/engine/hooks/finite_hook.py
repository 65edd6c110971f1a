# Copyright (c) mmdetr authors. All rights reserved.
import math

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from project.utils.errors import UserError
from project.utils.finite import check_finite, named, not_finite


@HOOKS.register_module()
class FiniteHook(Hook):
    """Ends a training whose weights are no numbers before it is saved.

    This package's detectors look at their losses themselves. What is left are
    gradients that are not finite though the losses are, and the losses of
    other models: this hook looks, after each step, at what mmengine has
    brought to the host by then (the sum of the losses and, with ``clip_grad``,
    the norm of the gradients), which costs nothing, and at all the weights
    before a checkpoint is written.

    Infinite gradients are no fault where a scaler skips such steps (mixed
    precision). ``DETRRunner`` adds this hook to every training.
    """

    # After the values were logged, before the default priority of hooks.
    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the logged values.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (object): Unused.
            outputs (dict): Unused.

        Raises:
            UserError: If the loss, or a weight after the step, is not finite.
        """
        loss, norm = (
            _last(runner, name) for name in ('train/loss', 'train/grad_norm')
        )
        if not math.isfinite(loss):
            raise UserError(
                f'The training stops after iteration {runner.iter + 1}: its '
                f'loss is {loss}; lower the learning rate or check the '
                'annotations.'
            )
        # The weights tell whether such gradients have reached them.
        if not math.isfinite(norm):
            names = not_finite(runner.model.state_dict())
            if names:
                raise UserError(
                    'The training stops after iteration '
                    f'{runner.iter + 1}: its losses are finite but the norm '
                    f'of their gradients is {norm}, and so {len(names)} '
                    f'weights ({named(names)}) are lost.'
                )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is to be saved.

        Raises:
            UserError: If one is not finite.
        """
        refuse_to_save(checkpoint['state_dict'])


def refuse_to_save(weights: dict) -> None:
    """Raise if weights that are to be saved are not finite.

    Args:
        weights (dict[str, Tensor]): By their names.

    Raises:
        UserError: If one is not finite.
    """
    check_finite(
        weights,
        'The model',
        'the training has diverged, and no checkpoint is written; lower the '
        'learning rate and resume from the last one',
    )


def _last(runner: Runner, name: str) -> float:
    """What was logged last under a name; 0 if nothing was."""
    buffer = runner.message_hub.log_scalars.get(name)
    return buffer.current() if buffer and len(buffer.data[0]) else 0.0
