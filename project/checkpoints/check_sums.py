# Copyright (c) mmdetr authors. All rights reserved.
"""Compares a checkpoint with the check sums that it was saved with."""

import functools
import os
import zipfile

from project.utils.errors import UserError

_CHUNK = 2**20


def check_intact(path: str | os.PathLike) -> None:
    """Raise if the bytes of a checkpoint are not those that were saved.

    ``torch.load`` compares no check sums: what a failing disk or a broken
    copy has changed among the weights loads unnoticed. Each file is read once
    by a process, at about 2 GB/s, unless it changes. A file older than
    torch's zip format, or saved without check sums, has nothing to compare.

    Args:
        path (str | PathLike): A file that exists.

    Raises:
        UserError: If the file is damaged or cut off.
    """
    status = os.stat(path)
    damage = _find_damage(
        os.fspath(path), status.st_size, status.st_mtime_ns, status.st_ino
    )
    if damage is not None:
        raise UserError(
            f'{path} ({status.st_size} bytes) is damaged and cannot be used: '
            f'{damage}; take another checkpoint, or get this one again.'
        )


@functools.lru_cache(maxsize=32)
def _find_damage(path: str, size: int, *_identity: int) -> str | None:
    """Say what is wrong with a file; the rest tells it from earlier ones."""
    if not size:
        return 'it is empty'
    try:
        with open(path, 'rb') as file:
            if file.read(4) != b'PK\x03\x04':
                return None  # another format
        if not zipfile.is_zipfile(path):
            return 'its end is missing'
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                _read(archive, part)
    except OSError as error:
        return f'it cannot be read ({error.strerror})'
    except Exception as error:  # damage shows as an error of any kind
        return ' '.join(str(error).split()) or type(error).__name__
    return None


def _read(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Read a part to its end, where its check sum is compared."""
    if part.CRC == 0:  # torch.serialization.set_crc32_options(False)
        return
    with archive.open(part) as file:
        while file.read(_CHUNK):
            pass
