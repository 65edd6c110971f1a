# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from project.engine import summary
from project.engine.terminal import quiet_terminal


@HOOKS.register_module()
class TerminalHook(Hook):
    """Shows on the terminal what a user looks at while a training runs.

    Before the first loss: data in a table, the model in three lines and what
    will happen. Between epochs the table of an evaluation goes to the log
    file alone. ``log_level = 'DEBUG'`` shows everything.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Tell what is going to happen."""
        for part in (summary.data, summary.model, summary.plan):
            try:
                lines = part(runner)
            except Exception as error:
                # Loops, data and batches of a user's own kind may lack what
                # is described; a training does not end for that.
                kind = type(error).__name__
                lines = [f'{part.__name__.capitalize()}: {kind}: {error}']
            for line in lines:
                runner.logger.info(line)
        self._is_training = True
        self._show(runner, 'running')

    def before_val_epoch(self, runner: Runner) -> None:
        """Leave the table to the log file where a training goes on."""
        self._show(runner, 'evaluating' if self._is_training else 'running')

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """Go on as before."""
        self._show(runner, 'running')

    def before_test(self, runner: Runner) -> None:
        """Show the results of a test."""
        self._show(runner, 'running')

    def _show(self, runner: Runner, phase: str) -> None:
        """Tell the terminal what is for it from now on."""
        shown = quiet_terminal(runner.logger)
        if shown is not None:
            shown.phase = phase
