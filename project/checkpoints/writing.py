# Copyright (c) mmdetr authors. All rights reserved.
"""Writes checkpoints atomically, and removes old ones only afterwards."""

import errno
import glob
import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.fileio import FileClient, LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, checkpoint_hook
from torch import Tensor

from project.utils.errors import UserError

UNFINISHED = '.unfinished'
"""Suffix of files that are being written, whose names begin with a dot."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_local(
    folder: str,
    backend_args: dict | None = None,
    file_client_args: dict | None = None,
) -> bool:
    """Whether mmengine writes a folder to a local file system.

    Args:
        folder (str): A path or an address.
        backend_args (dict, optional): As in mmengine's ``CheckpointHook``.
        file_client_args (dict, optional): Older name of ``backend_args``.
    """
    if file_client_args is not None:
        client = FileClient.infer_client(file_client_args, folder)
        return isinstance(client.client, LocalBackend)
    backend = get_file_backend(folder, backend_args=backend_args)
    return isinstance(backend, LocalBackend)


@contextmanager
def written_beside(path: str, mark: str = '') -> Iterator[str]:
    """Write a file atomically, replacing an existing one.

    Args:
        path (str): The file.
        mark (str): Part of the temporary name, if other processes may write
            the same file. Defaults to none.

    Yields:
        str: Temporary path to write to, in the same folder.

    Raises:
        UserError: If it cannot be written.
    """
    folder, name = osp.split(path)
    unfinished = osp.join(folder, f'.{name}{mark}{UNFINISHED}')
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(folder or '.')
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror or error}. What was '
            'saved before is still there.'
        ) from error
    finally:
        with suppress(OSError):
            os.remove(unfinished)


def _sync(path: str) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not support this for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_text(path: str, text: str) -> None:
    """Write a small file atomically.

    Raises:
        UserError: If it cannot be written.
    """
    with (
        written_beside(path) as unfinished,
        open(unfinished, 'w', encoding='utf-8') as file,
    ):
        file.write(text)


@contextmanager
def markers_written_beside() -> Iterator[None]:
    """Have mmengine's hook write ``last_checkpoint`` atomically.

    The hook opens it by the builtin function, which another one of that name
    in its module hides.
    """
    vars(checkpoint_hook)['open'] = _opened_beside
    try:
        yield
    finally:
        vars(checkpoint_hook).pop('open', None)


@contextmanager
def _opened_beside(path: str, mode: str) -> Iterator[IO]:
    with written_beside(path) as unfinished, open(unfinished, mode) as file:
        yield file


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically.

    Args:
        checkpoint (dict): Content, with the weights under ``state_dict``.
        path (Path): The file; parent folders are created.

    Raises:
        UserError: If it cannot be written.
    """
    weights = {k: _own(v) for k, v in checkpoint['state_dict'].items()}
    with written_beside(str(path)) as unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save({**checkpoint, 'state_dict': weights}, unfinished)
        except RuntimeError as error:  # torch's error for a full disk
            raise OSError(str(error).partition('\n')[0]) from error


def _own(tensor: Tensor) -> Tensor:
    """Copy a view of a larger storage, which ``torch.save`` would write."""
    used = tensor.numel() * tensor.element_size()
    return (
        tensor.clone() if tensor.untyped_storage().nbytes() > used else tensor
    )


def remove_unfinished(folder: str) -> None:
    """Remove unfinished files of a killed training.

    No other training may be writing there.
    """
    pattern = osp.join(glob.escape(folder), f'.*{UNFINISHED}')
    for path in glob.glob(pattern):
        with suppress(OSError):
            os.remove(path)


@contextmanager
def full_disk_told(folder: str) -> Iterator[None]:
    """Convert errors of a full disk to a :class:`UserError`.

    Args:
        folder (str): Named in the message if the error has no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f'{error.filename or folder} cannot be written: {error.strerror}. '
            'Make room and go on from the last checkpoint with --resume.'
        ) from error


class KeepingBackend:
    """A file backend that delays removals until the new file is written.

    mmengine's ``CheckpointHook`` removes outdated checkpoints before it writes
    the new one; a training that is killed in between would have none.

    Args:
        backend (Any): mmengine's backend or client of the hook.
        folder (str): Folder of the hook. Nothing is removed elsewhere: a
            training resumed in a copied folder still has the path of the
            original's best checkpoint.
    """

    def __init__(self, backend: Any, folder: str) -> None:
        self._backend = backend
        self._folder = osp.realpath(folder)
        self._outdated: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remove a file later."""
        self._outdated[osp.realpath(path)] = 'remove'

    def rmtree(self, path: str) -> None:
        """Remove a folder later."""
        self._outdated[osp.realpath(path)] = 'rmtree'

    def keep(self, path: str) -> None:
        """Keep an outdated file that has been rewritten."""
        self._outdated.pop(osp.realpath(path), None)

    def remove_outdated(self) -> None:
        """Remove the files that have been replaced."""
        outdated, self._outdated = self._outdated, {}
        for path, how in outdated.items():
            if osp.dirname(path) == self._folder:
                getattr(self._backend, how)(path)


def keep_until_replaced(hook: CheckpointHook) -> None:
    """Make a hook in training remove checkpoints only after writing."""
    backend = hook.file_backend
    if isinstance(backend, KeepingBackend):
        return
    if is_local(hook.out_dir, hook.backend_args, hook.file_client_args):
        hook.file_backend = KeepingBackend(backend, hook.out_dir)
