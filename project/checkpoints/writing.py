# Copyright (c) mmdetr authors. All rights reserved.
"""Writes checkpoints whole or not at all, and removes none before that."""

import errno
import glob
import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import FileClient, LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from torch import Tensor

from project.utils.errors import UserError

UNFINISHED = '.unfinished'
"""Ending of a file that is being written; its name begins with a dot."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_local(
    folder: str,
    backend_args: dict | None = None,
    file_client_args: dict | None = None,
) -> bool:
    """Tell whether mmengine keeps a folder on this machine's file systems.

    Args:
        folder (str): A path or an address.
        backend_args (dict, optional): As of mmengine's ``CheckpointHook``.
        file_client_args (dict, optional): As ``backend_args``, as it was
            called before.
    """
    if file_client_args is not None:
        client = FileClient.infer_client(file_client_args, folder)
        return isinstance(client.client, LocalBackend)
    backend = get_file_backend(folder, backend_args=backend_args)
    return isinstance(backend, LocalBackend)


@contextmanager
def written_beside(path: str) -> Iterator[str]:
    """Put a file in its place when it is written, or leave all as it was.

    Yields:
        str: Where to write it instead, in the same folder.

    Raises:
        UserError: If it cannot be written.
    """
    folder, name = osp.split(path)
    unfinished = osp.join(folder, f'.{name}{UNFINISHED}')
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
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_text(path: str, text: str) -> None:
    """Write a small file, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    with (
        written_beside(path) as unfinished,
        open(unfinished, 'w', encoding='utf-8') as file,
    ):
        file.write(text)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        checkpoint (dict): What ``torch.save`` takes, with the weights under
            ``state_dict``.
        path (Path): The file; missing folders above it are made.

    Raises:
        UserError: If it cannot be written.
    """
    weights = {k: _own(v) for k, v in checkpoint['state_dict'].items()}
    with written_beside(str(path)) as unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save({**checkpoint, 'state_dict': weights}, unfinished)
        except RuntimeError as error:  # so torch's writer tells a full disk
            raise OSError(str(error).partition('\n')[0]) from error


def _own(tensor: Tensor) -> Tensor:
    """Copy a tensor that is a part of a larger memory.

    ``torch.save`` would write all of that memory.
    """
    used = tensor.numel() * tensor.element_size()
    return (
        tensor.clone() if tensor.untyped_storage().nbytes() > used else tensor
    )


def remove_unfinished(folder: str) -> None:
    """Remove what a training that was killed had begun to write.

    No other training may be writing there.
    """
    pattern = osp.join(glob.escape(folder), f'.*{UNFINISHED}')
    for path in glob.glob(pattern):
        with suppress(OSError):
            os.remove(path)


@contextmanager
def full_disk_told(folder: str) -> Iterator[None]:
    """Tell in a sentence that there is no room, wherever it is noticed.

    Args:
        folder (str): Where most of what is written goes.

    Raises:
        UserError: Instead of an ``OSError`` that says so.
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
    """A file backend whose removals wait until what replaces them is there.

    mmengine's ``CheckpointHook`` removes outdated checkpoints first and then
    writes the new one; a training that is killed meanwhile would have none.

    Args:
        backend (Any): mmengine's backend or client of the hook.
        folder (str): Where the hook writes. Nothing is removed elsewhere:
            a training that goes on in a copy of its folder still knows its
            best checkpoint by the path of the original.
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
        """Keep a file that was outdated and has been written anew."""
        self._outdated.pop(osp.realpath(path), None)

    def remove_outdated(self) -> None:
        """Remove what has been replaced meanwhile."""
        outdated, self._outdated = self._outdated, {}
        for path, how in outdated.items():
            if osp.dirname(path) == self._folder:
                getattr(self._backend, how)(path)


def keep_until_replaced(hook: CheckpointHook) -> None:
    """Have a hook, which has begun to train, remove nothing too early."""
    backend = hook.file_backend
    if isinstance(backend, KeepingBackend):
        return
    if is_local(hook.out_dir, hook.backend_args, hook.file_client_args):
        hook.file_backend = KeepingBackend(backend, hook.out_dir)
