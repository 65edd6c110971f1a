"""Hooks that watch or disturb a training in a process of its own."""

import json
import os
import signal
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


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


def read_losses(work_dir: Path, rank: int) -> list[dict[str, float]]:
    """Read what :class:`RecordLosses` wrote, one dict for each iteration."""
    lines = (work_dir / f'losses_{rank}.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]
