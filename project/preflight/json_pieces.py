# Copyright (c) mmdetr authors. All rights reserved.
"""Cuts the longest list of a large json into pieces for several processes."""

import mmap
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
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
        key (str): Key of the list, which must occur once.

    Returns:
        list[int]: Where objects begin: the first, and one about every MB;
        empty if the list is short or the key is not unique.
    """
    quoted = b'"%s"' % key.encode()
    at = text.find(quoted)
    if at < 0 or text.find(quoted, at + 1) >= 0:
        return []
    start = _BEGINNING.match(text, at + len(quoted))
    places = [start.end()] if start else []
    while places:
        between = _BETWEEN.search(text, places[-1] + _PIECE)
        if between is None:
            break
        places.append(between.end() - 1)
    return places if len(places) > 1 else []


def read_pieces(
    path: str, places: list[int], read: Callable[[bytes], Result]
) -> list[Result]:
    """Read what lies between each place and the next.

    Args:
        path (str): Path of the json.
        places (list[int]): Of :func:`cuts`.
        read (Callable): Reads the json of a list; a function of a module.

    Returns:
        list: What ``read`` returned for each piece.
    """
    task = partial(_read_piece, path, read)
    with _executor(len(places)) as executor:
        run = executor.map if executor else map
        return list(run(task, places[:-1], places[1:]))


def _read_piece(
    path: str, read: Callable[[bytes], Result], start: int, stop: int
) -> Result:
    with open(path, 'rb') as file:
        file.seek(start)
        text = file.read(stop - start)
    return read(b'[%s]' % text.rstrip()[:-1])  # without the comma


@contextmanager
def _executor(num_pieces: int) -> Iterator[Executor | None]:
    """Processes where they are cheap to start; None otherwise."""
    is_cheap = sys.platform == 'linux'  # others import everything again
    if not is_cheap or multiprocessing.current_process().daemon:
        yield None
        return
    processes = min(_MAX_PROCESSES, num_pieces, len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(processes, mp_context=context) as executor:
        yield executor
