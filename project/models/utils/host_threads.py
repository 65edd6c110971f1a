# Copyright (c) mmdetr authors. All rights reserved.
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from project.utils.cores import num_cores

_T = TypeVar('_T')
_MAX_THREADS = 8


def run_in_threads(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run tasks side by side on the host.

    It pays for work that NumPy and SciPy do outside of Python's global lock.

    Args:
        tasks (Sequence[Callable]): Independent of each other.

    Returns:
        list: What each gives, in their order.

    Raises:
        Exception: Of the first task that fails.
    """
    num_threads = min(len(tasks), num_host_threads())
    if num_threads < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(lambda task: task(), tasks))


def num_host_threads() -> int:
    """Count the threads that this process may keep busy.

    Returns:
        int: Its share of the cores among the processes of a training on this
        machine, 8 at most.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE') or 1)
    return max(1, min(num_cores() // processes, _MAX_THREADS))
