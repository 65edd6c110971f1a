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
from typing import TypeVar

_PIECE = 2**20
"""Bytes of a piece, whose objects fit a processor's cache."""
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
        list[int]: Where objects begin: the first, and one about every MB;
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


def check_unique(text: bytes, key: str, times: int = 1) -> None:
    """Raise ValueError unless a key occurs as often as expected."""
    if text.count(_quoted(key)) != times:
        raise ValueError(f'{key!r} is not the key of one list alone')


def _quoted(key: str) -> bytes:
    return b'"%s"' % key.encode()


@contextmanager
def pieces_read(
    path: str, key: str, places: list[int], read: Callable[[bytes], Result]
) -> Iterator[Iterable[Result]]:
    """Read what lies between each place and the next, in the background.

    Args:
        path (str): Path of the json.
        key (str): Key of the list.
        places (list[int]): Of :func:`cuts`.
        read (Callable): Reads the json of a list; a function of a module.

    Yields:
        Iterable: What ``read`` returned for each piece; ValueError if the key
        occurs in one.
    """
    task = partial(_read_piece, path, key, read)
    with _executor(len(places)) as executor:
        run = executor.map if executor else map
        yield run(task, places[:-1], places[1:])


def _read_piece(
    path: str, key: str, read: Callable[[bytes], Result], start: int, stop: int
) -> Result:
    with open(path, 'rb') as file:
        file.seek(start)
        text = file.read(stop - start)
    check_unique(text, key, 0)
    return read(b'[%s]' % text.rstrip()[:-1])  # without the comma


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
