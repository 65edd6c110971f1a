# Copyright (c) mmdetr authors. All rights reserved.
"""Keeps what was read of large files, so that the next start is quick."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_VERSION = 1  # raise it when anything is stored otherwise


def cache_folder() -> Path:
    """Tell where things are kept: ``mmdetr`` in the user's cache folder."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'mmdetr' / 'preflight'


def file_key(path: str) -> str:
    """Identify a file as it is now by its path, size and time of change.

    Args:
        path (str): An existing file.

    Returns:
        str: A key for :func:`load` and :func:`store`.
    """
    found = os.stat(path)
    return text_key(
        [os.path.realpath(path), str(found.st_size), str(found.st_mtime_ns)]
    )


def text_key(parts: Iterable[str]) -> str:
    """Make a key of some texts.

    Args:
        parts (Iterable[str]): In their order.

    Returns:
        str: A key for :func:`load` and :func:`store`.
    """
    digest = hashlib.sha256(str(_VERSION).encode())
    for part in parts:
        digest.update(part.encode('utf-8', 'surrogateescape') + b'\0')
    return digest.hexdigest()[:40]


def load(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Read what was stored under a key.

    Args:
        kind (str): What is stored, a name of letters.
        key (str): Identifies what it was made of.

    Returns:
        dict[str, ndarray] | None: The arrays; None if there are none, or
        they cannot be read.
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
    """Keep arrays under a key, if there is a place for them.

    A process that is killed meanwhile leaves nothing that looks whole.

    Args:
        kind (str): As for :func:`load`.
        key (str): As for :func:`load`.
        arrays (Mapping[str, ndarray]): Without objects.
    """
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
    """Turn texts into bytes that an array can hold."""
    joined = '\0'.join(texts).encode('utf-8', 'surrogateescape')
    return np.frombuffer(joined, dtype=np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """Undo :func:`pack_texts`; no texts and one empty text are one."""
    return packed.tobytes().decode('utf-8', 'surrogateescape').split('\0')
