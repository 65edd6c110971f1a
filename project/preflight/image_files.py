# Copyright (c) mmdetr authors. All rights reserved.
"""Reads the headers of image files: size, rotation and completeness."""

import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile

from project.preflight import file_cache

MISSING = 'missing'
EMPTY = 'empty'
BROKEN = 'broken'
CUT_OFF = 'cut off'
"""The last rows are missing; OpenCV fills them with grey."""
TOO_LARGE = 'too large for OpenCV (by default 2^30 pixels, 2^20 a side)'
_FAULTS = ('', MISSING, EMPTY, BROKEN, TOO_LARGE, CUT_OFF)

# Limits of OpenCV's reader, each raised by an environment variable.
_LIMITS = {'PIXELS': 2**30, 'WIDTH': 2**20, 'HEIGHT': 2**20}
_MAX_DECODED = 10**8  # larger images are not decoded for the check
_BUDGET = 50.0
"""Seconds for the headers of one dataset; then a sample has to do."""
_CHUNK = 4000
_GROUP = 64
_NUM_THREADS = min(32, 4 * (os.cpu_count() or 1))
_WORTH_KEEPING = 2000
# End markers of complete files; padding may follow.
_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
_TAIL = 4096


@dataclass(frozen=True)
class ImageFiles:
    """The headers of some image files.

    Attributes:
        paths (list[str]): The files.
        sizes (ndarray): (width, height) of the stored pixels, int64, shape
            (num, 2); 0 if a file cannot be read.
        turns (ndarray): EXIF orientation, 1 to 8, shape (num,); 0 if a file
            was not looked at.
        faults (ndarray): Index into the list of faults, shape (num,).
        stamps (ndarray): Number of bytes and modification time in ns, shape
            (num, 2).
    """

    paths: list[str]
    sizes: np.ndarray
    turns: np.ndarray
    faults: np.ndarray
    stamps: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """Which files were looked at, bool, shape (num,)."""
        return self.turns > 0

    @property
    def shown_sizes(self) -> np.ndarray:
        """(width, height) after the rotation in EXIF data."""
        return np.where(
            (self.turns >= 5)[:, None], self.sizes[:, ::-1], self.sizes
        )

    def with_fault(self, fault: str = '') -> list[int]:
        """Indices of files with a fault, by default with any."""
        if fault:
            return np.flatnonzero(self.faults == _FAULTS.index(fault)).tolist()
        return np.flatnonzero(self.faults).tolist()

    def fault(self, index: int) -> str:
        """The fault of a file."""
        return _FAULTS[self.faults[index]]


def look_at_images(
    paths: Sequence[str], budget: float = _BUDGET
) -> ImageFiles:
    """Read the headers of image files.

    Headers of unchanged files are cached from earlier starts.

    Args:
        paths (Sequence[str]): The files.
        budget (float): Seconds after which the remaining files are skipped.
            The order is random, but always the same.

    Returns:
        ImageFiles: Their headers.
    """
    paths = list(paths)
    key = file_cache.text_key(map(os.path.abspath, paths))
    found = _blank(paths)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        deadline = time.monotonic() + budget
        found.stamps[:] = list(_map(pool, _stamp, paths))
        worth_keeping = len(paths) >= _WORTH_KEEPING
        if worth_keeping:
            _take_over(found, file_cache.load('images', key))
        left = np.flatnonzero(found.turns == 0)
        if not len(left):
            return found
        order = np.random.default_rng(0).permutation(left)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            _look(found, chunk, pool)
            if time.monotonic() > deadline:
                break
    if worth_keeping:
        names = ('sizes', 'turns', 'faults', 'stamps')
        arrays = {name: getattr(found, name) for name in names}
        file_cache.store('images', key, arrays)
    return found


def _blank(paths: list[str]) -> ImageFiles:
    """Start with no file looked at."""
    count = len(paths)
    return ImageFiles(
        paths=paths,
        sizes=np.zeros((count, 2), np.int64),
        turns=np.zeros(count, np.int8),
        faults=np.zeros(count, np.int8),
        stamps=np.zeros((count, 2), np.int64),
    )


def _take_over(found: ImageFiles, kept: dict[str, np.ndarray] | None) -> None:
    """Copy the cached headers of files that have not changed."""
    if kept is None:
        return
    same = (kept['stamps'] == found.stamps).all(1) & (kept['turns'] > 0)
    for name in ('sizes', 'turns', 'faults'):
        getattr(found, name)[same] = kept[name][same]


def _look(
    found: ImageFiles, chosen: np.ndarray, pool: ThreadPoolExecutor
) -> None:
    """Read the headers of the files with the chosen indices."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # OpenCV has another limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of damaged EXIF data
            results = list(
                _map(
                    pool,
                    _read_header,
                    [found.paths[index] for index in chosen],
                    found.stamps[chosen, 0].tolist(),
                )
            )
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    for index, (size, turn, fault) in zip(chosen, results, strict=True):
        found.sizes[index] = size
        found.turns[index] = turn
        found.faults[index] = _FAULTS.index(fault)


def _map(pool: ThreadPoolExecutor, read: Callable, *columns: list) -> Iterator:
    """Map a function over groups of files, to save thread switches."""
    groups = [
        [column[start : start + _GROUP] for column in columns]
        for start in range(0, len(columns[0]), _GROUP)
    ]
    done = pool.map(lambda group: list(map(read, *group)), groups)
    return itertools.chain.from_iterable(done)


def _stamp(path: str) -> tuple[int, int]:
    """Bytes and modification time of a file; -1 bytes if it is missing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, 0
    return found.st_size, found.st_mtime_ns


Header = tuple[tuple[int, int], int, str]


def _read_header(path: str, num_bytes: int) -> Header:
    """Read (width, height), orientation and fault of a file."""
    if num_bytes < 0:
        return (0, 0), 1, MISSING
    if num_bytes == 0:
        return (0, 0), 1, EMPTY
    try:
        with open(path, 'rb') as file:
            with Image.open(file) as image:
                size, kind = image.size, image.format
                turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            is_whole = _ends_well(file, kind, num_bytes)
    except Exception:  # OpenCV may read what Pillow cannot
        return _decode(path)
    turn = turn if turn in range(1, 9) else 1
    if _is_too_large(*size):
        return size, turn, TOO_LARGE
    if is_whole or size[0] * size[1] > _MAX_DECODED:
        return size, turn, ''
    return size, turn, _fault_of_pixels(path)


def _is_too_large(width: int, height: int) -> bool:
    """Return whether OpenCV refuses an image for its size."""
    found = {'PIXELS': width * height, 'WIDTH': width, 'HEIGHT': height}
    for name, limit in _LIMITS.items():
        told = os.environ.get(f'OPENCV_IO_MAX_IMAGE_{name}', '')
        if found[name] > (int(told) if told.isdecimal() else limit):
            return True
    return False


def _ends_well(file: BinaryIO, kind: str | None, num_bytes: int) -> bool:
    """Return whether a file has its end marker; False if it has none."""
    end = _ENDS.get(kind or '')
    if end is None:
        return False
    file.seek(max(num_bytes - _TAIL, 0))
    return end in file.read()


def _fault_of_pixels(path: str) -> str:
    """Decode an image that may be incomplete, and return its fault."""
    fault = _decode(path)[2]
    if fault or ImageFile.LOAD_TRUNCATED_IMAGES:
        return fault
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:
        return CUT_OFF
    return ''


def _decode(path: str) -> Header:
    """Read an image as training does."""
    try:
        content = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        pixels = None
    if pixels is None:
        return (0, 0), 1, BROKEN
    return (pixels.shape[1], pixels.shape[0]), 1, ''
