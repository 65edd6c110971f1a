# Copyright (c) mmdetr authors. All rights reserved.
import os


def num_cores() -> int:
    """Number of cores that this process may use.

    On systems without affinity, such as macOS, all cores of the machine.
    """
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
