# Copyright (c) mmdetr authors. All rights reserved.
"""Saves a training that is asked to end, as schedulers do before they kill."""

import multiprocessing
import os
import os.path as osp
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from project.checkpoints.last_checkpoint import MARKER, STOPPED
from project.checkpoints.writing import is_local, write_text

NUMBERS = tuple(
    getattr(signal, name)
    for name in ('SIGTERM', 'SIGUSR1')
    if hasattr(signal, name)
)
_ONE_REQUEST = 2.0
"""A scheduler and a launcher pass one signal on within this time (seconds)."""


class StopOnSignal(Hook):
    """Ends a training at SIGTERM or SIGUSR1, after the step and a checkpoint.

    The checkpoint is ``stopped.pth``, from which ``resume`` goes on. The
    process exits with status 128 and the number of the signal, 143 or 138.
    One that comes again, two seconds later or more, ends it at once.

    The processes of a distributed training end after the same step, whichever
    of them the signal reaches: they exchange a number after each, which waits
    for the slowest, as the next step would.

    During validation there is nothing new to save: the training ends at once
    if a checkpoint of the last step is there, or else after it.
    """

    # After CheckpointHook, which may just have saved this step.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._has_saved = False
        self._before: dict[int, Any] = {}
        self._is_training, self._process = False, os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Listen from now on.

        Args:
            runner (Runner): The runner.
        """
        self._is_training, self._process = True, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._receive)
                for number in NUMBERS
            }

    def close(self) -> None:
        """Listen no more."""
        self._is_training = False
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """End the training if any process has been asked to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (object): Unused.
            outputs (dict): Unused.
        """
        self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """End the training if there is nothing to save.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (object): Unused.
            outputs (object): Unused.
        """
        is_asked = self._is_training and self.received is not None
        if is_asked and runner.saved_iter == runner.iter:
            self._end(runner, self.received, 'it was saved before')

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """End the training if any process has been asked to.

        Args:
            runner (Runner): The runner.
            metrics (dict): Unused.
        """
        if self._is_training:
            self._stop_if_asked(runner, runner.iter)

    def told_to_end(self, runner: Runner, error: Exception) -> bool:
        """Tell whether a step broke because the job is being ended.

        Where one process has failed the launcher asks the others to end, and
        they cannot complete a step without it.

        Args:
            runner (Runner): The runner.
            error (Exception): What ended the training.

        Returns:
            bool: Whether to end quietly.
        """
        if self.received is None or runner.world_size == 1:
            return False
        reason = str(error).partition('\n')[0]
        runner.logger.warning(
            f'The training ends at {signal.Signals(self.received).name} '
            f'without saving: the step broke off ({reason}).'
        )
        return True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, or end at once if it is the second."""
        now = time.monotonic()
        if os.getpid() != self._process:
            _end_forked(number)
        elif self.received is None:
            self.received, self._since = number, now
        elif self._has_saved:
            os._exit(128 + self.received)
        elif now - self._since > _ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _stop_if_asked(self, runner: Runner, iteration: int) -> None:
        """Save and end after the step at which all know of the signal."""
        number = torch.tensor(self.received or 0)
        all_reduce(number, 'max')
        if not number:
            return
        path = save_stopped(runner, iteration)
        self._end(runner, int(number), f'{path} goes on from here')

    def _end(self, runner: Runner, number: int, saved: str) -> None:
        """Leave the loop, and the program if nobody catches it."""
        self._has_saved = True
        runner.logger.warning(
            f'The training ends at {signal.Signals(number).name}, after '
            f'{runner.saved_iter} iterations: {saved}; resume it with '
            '--resume.'
        )
        raise SystemExit(128 + number)


def _end_forked(number: int) -> None:
    """Let a process that was forked from the training end at SIGTERM alone.

    That is how the pools of metrics, such as ``VOCMetric``'s, end theirs.
    """
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def save_stopped(runner: Runner, iteration: int) -> str:
    """Save a training between its checkpoints, from all its processes.

    Args:
        runner (Runner): A ``DETRRunner``.
        iteration (int): How many iterations are done.

    Returns:
        str: The file; that of the training's own checkpoint, if this step
        has one.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    if runner.saved_iter == iteration:
        last = next((h.last_ckpt for h in hooks if h.last_ckpt), None)
        path = last or osp.join(runner.work_dir, MARKER)
    else:
        path = _save(runner, iteration, hooks[0] if hooks else None)
    # A process that ended now would have the launcher end the one that saves.
    barrier()
    return path


def _save(runner: Runner, iteration: int, hook: CheckpointHook | None) -> str:
    """Save where the training's checkpoints go."""
    folder, how = runner.work_dir, {}
    if hook is not None:
        folder = hook.out_dir
        how = dict(backend_args=hook.backend_args)
        if hook.file_client_args is not None:
            how = dict(file_client_args=hook.file_client_args)
    runner.save_checkpoint(
        folder,
        STOPPED,
        meta=dict(epoch=runner.epoch, iter=iteration),
        by_epoch=False,
        **how,
    )
    path = osp.join(folder, STOPPED)
    if is_main_process() and is_local(runner.work_dir):
        write_text(osp.join(runner.work_dir, MARKER), path)
    return path


def shield_workers(loader: DataLoader) -> DataLoader:
    """Keep a dataloader's workers from what is meant for the training.

    Schedulers and launchers send a signal to all processes of a job. Workers
    that end break the step that is to be completed.

    Args:
        loader (DataLoader): Is changed. Its workers have not started.

    Returns:
        DataLoader: The same.
    """
    begin = loader.worker_init_fn
    if loader.num_workers and not isinstance(begin, _Shielded):
        loader.worker_init_fn = _Shielded(begin)
    return loader


class _Shielded:
    """Begins a worker that ends for its parent alone.

    Args:
        begin (Callable, optional): Takes the number of the worker.
    """

    def __init__(self, begin: Callable[[int], None] | None) -> None:
        self._begin = begin

    def __call__(self, worker_id: int) -> None:
        for number in NUMBERS:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, 'sigwaitinfo'):
            # Blocked, it is left for the thread, which learns who sent it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=_end_for_parent, daemon=True).start()
        if self._begin is not None:
            self._begin(worker_id)


def _end_for_parent() -> None:
    """End this worker when its parent asks, and for nobody else."""
    # Where a server forks workers, getppid() would name that.
    parent = multiprocessing.parent_process().pid
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
