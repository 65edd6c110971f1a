# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from project.engine import summary
from project.engine.terminal import quiet_terminal


@HOOKS.register_module()
class TerminalHook(Hook):
    """Keeps the terminal readable while a training runs.

    Before the first step it prints a summary of data, model and schedule.
    During training the table of an evaluation goes to the log file only.
    ``log_level = 'DEBUG'`` shows everything.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Print the summary."""
        for part in (summary.data, summary.model, summary.plan):
            try:
                lines = part(runner)
            except Exception as error:
                # A user's own loops or datasets may lack what is described;
                # that must not end a training.
                kind = type(error).__name__
                lines = [f'{part.__name__.capitalize()}: {kind}: {error}']
            for line in lines:
                runner.logger.info(line)
        self._is_training = True
        self._show(runner, 'running')

    def before_val_epoch(self, runner: Runner) -> None:
        """Keep the table off the terminal during training."""
        self._show(runner, 'evaluating' if self._is_training else 'running')

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """Show everything again."""
        self._show(runner, 'running')

    def before_test(self, runner: Runner) -> None:
        """Show the results of a test."""
        self._show(runner, 'running')

    def _show(self, runner: Runner, phase: str) -> None:
        """Set the phase of the terminal's filter."""
        shown = quiet_terminal(runner.logger)
        if shown is not None:
            shown.phase = phase
