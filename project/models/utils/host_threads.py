# Copyright (c) mmdetr authors. All rights reserved.
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from project.utils.cores import num_cores

_T = TypeVar('_T')
_MAX_THREADS = 8


def run_in_threads(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run tasks in parallel threads.

    Useful for NumPy and SciPy functions that release Python's global lock.

    Args:
        tasks (Sequence[Callable]): Independent tasks.

    Returns:
        list: Their results, in order.

    Raises:
        Exception: That of the first task that fails.
    """
    num_threads = min(len(tasks), num_host_threads())
    if num_threads < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(lambda task: task(), tasks))


def num_host_threads() -> int:
    """Number of threads for this process.

    Returns:
        int: The cores of this machine divided by its processes of the
        training, at most 8.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE') or 1)
    return max(1, min(num_cores() // processes, _MAX_THREADS))
