# Copyright (c) mmdetr authors. All rights reserved.
"""Caches what was read of large files for the next start."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_VERSION = 1  # raise it when the stored arrays change


def cache_folder() -> Path:
    """Folder of the cache, ``mmdetr/preflight`` in the user's cache folder."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'mmdetr' / 'preflight'


def file_key(path: str) -> str:
    """Make a key of a file's path, size and modification time."""
    found = os.stat(path)
    return text_key(
        [os.path.realpath(path), str(found.st_size), str(found.st_mtime_ns)]
    )


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


def _path(kind: str, key: str) -> Path:
    return cache_folder() / f'{kind}-{key}.npz'


def pack_texts(texts: Iterable[str]) -> np.ndarray:
    """Pack strings into an array of bytes."""
    joined = '\0'.join(texts).encode('utf-8', 'surrogateescape')
    return np.frombuffer(joined, dtype=np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """Undo :func:`pack_texts`; no string reads as one empty string."""
    return packed.tobytes().decode('utf-8', 'surrogateescape').split('\0')
