# Copyright (c) mmdetr authors. All rights reserved.
"""Verifies the checksums in checkpoint files."""

import functools
import os
import zipfile

from project.utils.errors import UserError

_CHUNK = 2**20


def check_intact(path: str | os.PathLike) -> None:
    """Raise if a checkpoint does not match its checksums.

    ``torch.load`` does not verify them, so weights that a failing disk or a
    broken copy has changed would load unnoticed. Each process reads a file
    once, at about 2 GB/s, unless it changes. Files older than torch's zip
    format, or saved without checksums, are not checked.

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
    """Describe the damage of a file; other arguments are cache keys."""
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
    """Read a part to its end, where zipfile compares its checksum."""
    if part.CRC == 0:  # torch.serialization.set_crc32_options(False)
        return
    with archive.open(part) as file:
        while file.read(_CHUNK):
            pass
