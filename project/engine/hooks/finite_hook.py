# Copyright (c) mmdetr authors. All rights reserved.
import math

from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from project.utils.errors import UserError, some_of
from project.utils.finite import check_finite, not_finite


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops a training whose loss or weights are no longer finite.

    This package's detectors check their losses themselves. This hook catches
    the losses of other models, and gradients that are not finite although the
    losses are. After each step it looks at what mmengine has logged (the total
    loss and, with ``clip_grad``, the gradient norm, of which the last one may
    still be on its way from the device), which needs no further device
    synchronisation; before a checkpoint is saved it looks at all weights.

    With mixed precision, infinite gradients are expected: the loss scaler
    skips such steps. ``DETRRunner`` adds this hook to every training.
    """

    # After RuntimeInfoHook, which logs the values.
    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Check the logged loss and gradient norm.

        Raises:
            UserError: If the loss, or a weight after the step, is not finite.
        """
        if _is_reported(runner, batch_idx):
            log_norm(runner)
        loss, norm = (
            _last(runner, name) for name in ('train/loss', 'train/grad_norm')
        )
        if not math.isfinite(loss):
            raise UserError(
                f'The training stops after iteration {runner.iter + 1}: its '
                f'loss is {loss}; lower the learning rate or check the '
                'annotations.'
            )
        # A loss scaler may have skipped the step: the weights tell.
        if not math.isfinite(norm):
            names = not_finite(runner.model.state_dict())
            if names:
                raise UserError(
                    'The training stops after iteration '
                    f'{runner.iter + 1}: its losses are finite but the norm '
                    f'of their gradients is {norm}, and so {len(names)} '
                    f'weights ({some_of(names)}) are lost.'
                )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights that are to be saved.

        Raises:
            UserError: If one is not finite.
        """
        refuse_to_save(checkpoint['state_dict'])


def refuse_to_save(weights: dict) -> None:
    """Raise if weights that are to be saved are not finite.

    Raises:
        UserError: If one is not finite.
    """
    check_finite(
        weights,
        'The model',
        'the training has diverged, and no checkpoint is written; lower the '
        'learning rate and resume from the last one',
    )


def log_norm(runner: Runner) -> None:
    """Have the norm of the last gradients in the log."""
    log = getattr(runner.optim_wrapper, 'log_norm', None)
    if log is not None:
        log()


def _is_reported(runner: Runner, batch_idx: int) -> bool:
    """Whether a line about this iteration may follow."""
    return any(
        isinstance(hook, LoggerHook)
        and (
            hook.every_n_inner_iters(batch_idx, hook.interval)
            or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        )
        for hook in runner.hooks
    )


def _last(runner: Runner, name: str) -> float:
    """Last logged value of a name; 0 if there is none."""
    buffer = runner.message_hub.log_scalars.get(name)
    return buffer.current() if buffer and len(buffer.data[0]) else 0.0
