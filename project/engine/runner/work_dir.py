# Copyright (c) mmdetr authors. All rights reserved.
"""Protects the contents of a work dir from other trainings."""

import json
import math
import os
import os.path as osp
import shutil
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress

from mmengine.logging import MessageHub

from project.checkpoints.last_checkpoint import MARKER, own_checkpoints
from project.utils.errors import UserError, some_of

if sys.platform != 'win32':
    import fcntl

PATIENCE = 20
"""Seconds in which a training that was asked to end has usually saved."""


def check_writable(folder: str, what: str) -> None:
    """Create a folder and raise unless files can be written into it.

    Args:
        folder (str): The folder.
        what (str): Its name in the message.

    Raises:
        UserError: If it cannot be created or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = 'a file is in the way'
        raise UserError(
            f'The {what} {folder} cannot be written to: {reason}. '
            'Name another one, or make it writable.'
        ) from error


def check_replaceable(work_dir: str) -> None:
    """Raise if the file that names the last checkpoint cannot be replaced.

    Raises:
        UserError: If it is a folder or read-only.
    """
    marker = osp.join(work_dir, MARKER)
    if osp.isdir(marker):
        raise UserError(f'{marker} is in the way: it is a folder.')
    if osp.exists(marker) and not os.access(marker, os.W_OK):
        raise UserError(
            f'{marker} cannot be written; make it writable, or train into '
            'another folder.'
        )


def check_unused(work_dir: str, folder: str, templates: Iterable[str]) -> None:
    """Refuse to overwrite the checkpoints of an earlier training.

    Args:
        work_dir (str): Work dir of the training that is about to start.
        folder (str): Folder of its checkpoints.
        templates (Iterable[str]): File names of checkpoints, with ``{}`` for
            the number.

    Raises:
        UserError: If there are any.
    """
    found = own_checkpoints(folder, templates)
    if not found and osp.exists(osp.join(work_dir, MARKER)):
        folder, found = work_dir, [MARKER]
    if not found:
        return
    raise UserError(
        f'{folder} holds checkpoints of another training ({some_of(found)}): '
        'go on with it by --resume, train into another folder, or write over '
        'them with --overwrite (overwrite=True in the config).'
    )


def check_room(
    folder: str, size: int, num_kept: int, num_there: int
) -> str | None:
    """Compare the free disk space with what a training is going to save.

    Args:
        folder (str): Folder of the checkpoints.
        size (int): Approximate size of a checkpoint in bytes.
        num_kept (int): How many checkpoints the training keeps at its end.
        num_there (int): How many of them exist already.

    Returns:
        str | None: A warning, if not all checkpoints will fit.

    Raises:
        UserError: If not even one fits.
    """
    free = shutil.disk_usage(folder).free
    # A new checkpoint is written before an old one is removed.
    need = size * max(1, num_kept + 1 - num_there)
    if free >= need:
        return None
    room = f'{folder} has {_readable(free)} of free space'
    if free < size:
        raise UserError(
            f'{room} and a checkpoint of this model takes about '
            f'{_readable(size)}; make room, or train into another folder.'
        )
    return (
        f'{room}, and the checkpoints of this training will take about '
        f'{_readable(need)}, {_readable(size)} each; '
        'default_hooks.checkpoint.max_keep_ckpts limits how many are kept.'
    )


def _readable(size: float) -> str:
    """Format a number of bytes."""
    step = min(3, int(math.log(max(size, 1), 1024)))
    return f'{size / 1024**step:.3g} {("B", "KiB", "MiB", "GiB")[step]}'


def forget_foreign_best(hub: MessageHub, folder: str) -> None:
    """Point the message hub to the best checkpoints of this work dir.

    The hub holds absolute paths; in a copied work dir these are files of the
    original.

    Args:
        hub (MessageHub): The hub of a resumed training; changed in place.
        folder (str): Where this training saves.
    """
    for key in list(hub.runtime_info):
        path = hub.runtime_info[key]
        is_path = key.startswith(('best_ckpt', 'last_ckpt'))
        if not is_path or not isinstance(path, str):
            continue
        here = osp.join(folder, osp.basename(path))
        if osp.exists(here):
            hub.update_info(key, here)
        elif osp.realpath(osp.dirname(path)) != osp.realpath(folder):
            hub.runtime_info.pop(key)


class WorkDirLock:
    """Lets only one training at a time write into a work dir.

    The operating system locks an open file (flock) and releases it when the
    process ends, however it ends. The file itself stays and has no meaning.
    On NFS the lock holds between machines if the server supports locks; on a
    file system without locks nothing is locked.

    Args:
        work_dir (str): An existing folder.
        kind (str): What writes there: the file that is locked is
            ``.<kind>.lock``.
        remedy (str): What to do about one that others hold.
    """

    def __init__(
        self,
        work_dir: str,
        kind: str = 'training',
        remedy: str = (
            'train into another folder, or end that training first'
        ),
    ) -> None:
        self._work_dir = work_dir
        self._kind = kind
        self._remedy = remedy
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; wait some seconds for a training that is ending.

        Raises:
            UserError: If another training keeps the lock.
        """
        path = osp.join(self._work_dir, f'.{self._kind}.lock')
        descriptor = _open_lock(path)
        deadline, is_told = time.monotonic() + PATIENCE, False
        while not _try_lock(descriptor):
            if not is_told:
                is_told = True
                print(
                    f'{self._work_dir} is in use by {self._holder(path)}; '
                    f'waiting for up to {PATIENCE:g} s.',
                    file=sys.stderr,
                    flush=True,
                )
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(
                    f'{self._work_dir} is in use by {self._holder(path)}; '
                    f'{self._remedy}.'
                )
            time.sleep(0.2)
        _sign(descriptor)
        self._descriptor = descriptor
        _HELD.add(self)

    def release(self) -> None:
        """Release the lock if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        _HELD.discard(self)
        if descriptor is not None:
            os.close(descriptor)

    def _holder(self, path: str) -> str:
        """Say who has signed a lock file last."""
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
            return (
                f'another {self._kind} (process {content["pid"]} on '
                f'{content["host"]}, since {content["since"]})'
            )
        except (OSError, ValueError, KeyError, TypeError):
            return f'another {self._kind}'


_HELD: 'weakref.WeakSet[WorkDirLock]' = weakref.WeakSet()


def _release_in_child() -> None:
    """Release a forked worker's copies; it may outlive its parent."""
    for lock in list(_HELD):
        lock.release()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_release_in_child)


def _open_lock(path: str) -> int:
    """Open a lock file, which may belong to another user."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _sign(descriptor: int) -> None:
    """Write into a lock file who holds it."""
    content = dict(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=time.strftime('%Y-%m-%d %H:%M:%S'),
    )
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(content).encode())


def _try_lock(descriptor: int) -> bool:
    """Take a lock if it is free."""
    if sys.platform == 'win32':
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks
    return True
