# Copyright (c) mmdetr authors. All rights reserved.
"""Caches what was read of large files for the next start."""

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_VERSION = 3  # raise it when the stored arrays change
_LARGE = 4 * 2**20
"""Size in bytes above which what was read of a file is cached."""
_WRITER = 'mmdetr-preflight-cache'


def cache_folder() -> Path:
    """Folder of the cache, ``mmdetr/preflight`` in the user's cache folder."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'mmdetr' / 'preflight'


def text_key(parts: Iterable[str]) -> str:
    """Make a key for :func:`load` and :func:`store` of some strings."""
    digest = hashlib.sha256(str(_VERSION).encode())
    for part in parts:
        digest.update(part.encode('utf-8', 'surrogateescape') + b'\0')
    return digest.hexdigest()[:40]


def load(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Read the arrays stored under a key.

    Args:
        kind (str): Kind of content; start of the file name.
        key (str): Identifies the source of the content.

    Returns:
        dict[str, ndarray] | None: The arrays; None if nothing is stored, or
        it cannot be read.
    """
    try:
        with np.load(_path(kind, key), allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, KeyError):
        return None
    except Exception as error:  # zipfile has errors of its own
        if type(error).__module__ in ('zipfile', 'zlib'):
            return None
        raise


def store(kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Store arrays under a key, atomically; do nothing if that fails."""
    path = _path(kind, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix='.partial')
        try:
            with os.fdopen(handle, 'wb') as file:
                # None is called allow_pickle, the one other keyword.
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(partial, path)
        except OSError:
            os.unlink(partial)


class CachedFile:
    """What was read of a file, by path, size and modification time.

    Nothing is kept of small files.

    Args:
        kind (str): Kind of content.
        path (str): Path of the file, before it is read.

    Raises:
        OSError: If there is no such file.
    """

    def __init__(self, kind: str, path: str) -> None:
        found = os.stat(path)
        state = [str(found.st_size), str(found.st_mtime_ns)]
        self._kind = kind
        self._key = text_key([os.path.realpath(path), *state])
        self._is_large = found.st_size >= _LARGE

    def load(self) -> dict[str, np.ndarray] | None:
        """Read what is kept, as :func:`load` does."""
        if not self._is_large:
            return None
        # What reads the file instead starts processes: not beside a thread.
        for thread in threading.enumerate():
            if thread.name == _WRITER:
                thread.join()
        return load(self._kind, self._key)

    def store(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what was read; a thread writes it, since nobody waits for it.

        Args:
            arrays (Mapping): Arrays that do not change any more.
        """
        if self._is_large:
            threading.Thread(
                target=store,
                args=(self._kind, self._key, arrays),
                name=_WRITER,
            ).start()


def _path(kind: str, key: str) -> Path:
    return cache_folder() / f'{kind}-{key}.npz'


def pack_texts(texts: Iterable[str]) -> np.ndarray:
    """Pack strings into an array of bytes."""
    joined = '\0'.join(texts).encode('utf-8', 'surrogateescape')
    return np.frombuffer(joined, dtype=np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """Undo :func:`pack_texts`; no string reads as one empty string."""
    return packed.tobytes().decode('utf-8', 'surrogateescape').split('\0')
