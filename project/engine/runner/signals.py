# Copyright (c) mmdetr authors. All rights reserved.
"""Saves a training at the signals that schedulers send before they kill it."""

import multiprocessing
import os
import os.path as osp
import signal
import threading
import time
from collections.abc import Callable, Collection
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
ONE_REQUEST = 2.0
"""Seconds within which scheduler and launcher pass on the same signal."""


class _Forks(threading.local):
    """Lets processes that a training forks end at SIGTERM, and at it alone.

    That is how the pools of metrics, such as ``VOCMetric``'s, end theirs. A
    handler in Python does not do: a signal that arrives before the new
    process runs is forgotten there, and the pool would wait for ever. The
    signals are therefore held back until the process has its own handlers.
    """

    are_shielded = False  # while a training handles signals
    mask: Collection[int] | None = None

    @classmethod
    def watch(cls) -> None:
        """Act at each fork from now on."""
        forks = cls()
        os.register_at_fork(
            before=forks.hold,
            after_in_parent=forks.release,
            after_in_child=forks.begin,
        )

    def hold(self) -> None:
        """Hold the signals back, before a fork."""
        if _Forks.are_shielded:
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)

    def release(self) -> None:
        """Let them through again."""
        mask, self.mask = self.mask, None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def begin(self) -> None:
        """Give the new process handlers of its own."""
        if self.mask is not None:
            for number in NUMBERS:
                ends = number == signal.SIGTERM
                signal.signal(
                    number, signal.SIG_DFL if ends else signal.SIG_IGN
                )
        self.release()


if hasattr(os, 'register_at_fork'):
    _Forks.watch()


class StopOnSignal(Hook):
    """Saves and ends a training at SIGTERM or SIGUSR1, after the current step.

    It saves ``stopped.pth``, from which ``resume`` continues, and exits with
    status 128 plus the number of the signal (143 or 138). A second signal,
    two or more seconds later, ends the training at once.

    The processes of a distributed training end after the same step, whichever
    of them gets the signal: they all-reduce one number per step.

    During validation there is nothing new to save: the training ends at once
    if the last step has been saved, otherwise after the validation.
    """

    # After CheckpointHook, which may have saved this step.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._has_saved = False
        self._before: dict[int, Any] = {}
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        self._is_training = True
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._receive)
                for number in NUMBERS
            }
            _Forks.are_shielded = True

    def close(self) -> None:
        """Restore the earlier signal handlers."""
        self._is_training = _Forks.are_shielded = False
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
        """End the training if a signal has reached any process."""
        self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """End the training at once if there is nothing to save."""
        if not self._is_training or self.received is None:
            return
        if runner.saved_iter == runner.iter:
            self._end(runner, self.received, 'it was saved before')

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """End the training if a signal has reached any process."""
        if self._is_training:
            self._stop_if_asked(runner, runner.iter)

    def signal_behind(self, runner: Runner, error: Exception) -> int | None:
        """Find the signal that made a step of a distributed training fail.

        When one process fails, the launcher asks the others to end, and they
        cannot complete a step without it.

        Returns:
            int | None: The number of the signal; None for other errors.
        """
        if self.received is None or runner.world_size == 1:
            return None
        reason = str(error).partition('\n')[0]
        runner.logger.warning(
            f'The training ends at {signal.Signals(self.received).name} '
            f'without saving: the step broke off ({reason}).'
        )
        return self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; end at once at the second one."""
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif self._has_saved:
            os._exit(128 + self.received)
        elif now - self._since > ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _stop_if_asked(self, runner: Runner, iteration: int) -> None:
        """Save and end if any process has received a signal."""
        number = torch.tensor(self.received or 0)
        all_reduce(number, 'max')
        if not number:
            return
        path = save_stopped(runner, iteration)
        self._end(runner, int(number), f'{path} goes on from here')

    def _end(self, runner: Runner, number: int, saved: str) -> None:
        """Raise ``SystemExit``, which ends the loop."""
        self._has_saved = True
        runner.logger.warning(
            f'The training ends at {signal.Signals(number).name}, after '
            f'{runner.saved_iter} iterations: {saved}; resume it with '
            '--resume.'
        )
        raise SystemExit(128 + number)


def save_stopped(runner: Runner, iteration: int) -> str:
    """Save a training at once; all its processes have to call it.

    Returns:
        str: The file; the training's regular checkpoint if it has just saved
        one.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    if runner.saved_iter == iteration:
        last = next((h.last_ckpt for h in hooks if h.last_ckpt), None)
        path = last or osp.join(runner.work_dir, MARKER)
    else:
        path = _save(runner, iteration, hooks[0] if hooks else None)
    # If a process ended before, the launcher would end the one that saves.
    barrier()
    return path


def _save(runner: Runner, iteration: int, hook: CheckpointHook | None) -> str:
    """Save into the folder of the training's checkpoints."""
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
    """Have a dataloader's workers ignore signals meant for the training.

    Schedulers and launchers signal all processes of a job. If workers ended,
    the current step could not be completed.

    Args:
        loader (DataLoader): Changed in place; its workers must not have
            started.
    """
    begin = loader.worker_init_fn
    if loader.num_workers and not isinstance(begin, _Shielded):
        loader.worker_init_fn = _Shielded(begin)
    return loader


class _Shielded:
    """Starts a worker that only its parent can end.

    Args:
        begin (Callable, optional): ``worker_init_fn`` of the dataloader.
    """

    def __init__(self, begin: Callable[[int], None] | None) -> None:
        self._begin = begin

    def __call__(self, worker_id: int) -> None:
        for number in NUMBERS:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, 'sigwaitinfo'):
            # A blocked signal goes to the thread, which sees its sender.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=_end_for_parent, daemon=True).start()
        if self._begin is not None:
            self._begin(worker_id)


def _end_for_parent() -> None:
    """End this worker when its parent, and nobody else, asks it to."""
    # With a fork server, getppid() would be the server.
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent.pid:
        pass
    os._exit(0)
