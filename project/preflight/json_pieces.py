# Copyright (c) mmdetr authors. All rights reserved.
"""Cuts the longest list of a large json into pieces for several processes."""

import mmap
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TypeVar

_PIECE = 2**18
"""Bytes of a piece: larger ones would each get fresh pages of memory."""
_RUN = 32
"""Pieces that a process reads at a time."""
_BEGINNING = re.compile(rb'\s*:\s*\[\s*(?=\{)')
_BETWEEN = re.compile(rb'\}\s*,\s*\{')
_MAX_PROCESSES = 4

Result = TypeVar('Result')


def cuts(text: bytes | mmap.mmap, key: str) -> list[int]:
    """Find places between the objects of a list.

    A place may be wrong, such as one inside a string or a nested list; then
    no piece at it is valid json.

    Args:
        text (bytes | mmap): The json.
        key (str): Key of the list.

    Returns:
        list[int]: Where objects begin: the first, and one about every 256 KB;
        empty if the list is short.
    """
    at = text.find(_quoted(key))
    start = _BEGINNING.match(text, at + len(_quoted(key))) if at >= 0 else None
    places = [start.end()] if start else []
    while places:
        between = _BETWEEN.search(text, places[-1] + _PIECE)
        if between is None:
            break
        places.append(between.end() - 1)
    return places if len(places) > 1 else []


def check_unique(text: bytes, key: str) -> None:
    """Raise ValueError unless a key occurs once."""
    if text.count(_quoted(key)) != 1:
        raise ValueError(f'{key!r} is not the key of one list alone')


def _quoted(key: str) -> bytes:
    return b'"%s"' % key.encode()


@contextmanager
def pieces_read(
    path: str,
    places: list[int],
    read: Callable[[Iterable[bytes]], Result],
) -> Iterator[Iterable[Result]]:
    """Read what lies between each place and the next, in the background.

    Args:
        path (str): Path of the json.
        places (list[int]): Of :func:`cuts`.
        read (Callable): Reads the json of lists; a function of a module.

    Yields:
        Iterable: What ``read`` returned for each run of pieces.
    """
    task = partial(_read_run, path, read)
    runs = [
        places[first : first + _RUN + 1]
        for first in range(0, len(places) - 1, _RUN)
    ]
    with _executor(len(runs)) as executor:
        yield (executor.map if executor else map)(task, runs)


def _read_run(
    path: str,
    read: Callable[[Iterable[bytes]], Result],
    places: list[int],
) -> Result:
    return read(_pieces(path, places))


def _pieces(path: str, places: list[int]) -> Iterator[bytes]:
    with open(path, 'rb') as file:
        file.seek(places[0])
        for start, stop in pairwise(places):
            piece = file.read(stop - start)
            # Its last comma is the one before the next piece.
            yield b'[%s]' % piece[: piece.rindex(b',')]


@contextmanager
def _executor(num_pieces: int) -> Iterator[Executor | None]:
    """Processes where they are cheap to start; None otherwise."""
    forks = sys.platform == 'linux'  # elsewhere they import everything again
    is_allowed = forks and not multiprocessing.current_process().daemon
    if not (num_pieces and is_allowed):
        yield None
        return
    processes = min(_MAX_PROCESSES, num_pieces, len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(processes, mp_context=context) as executor:
        yield executor
