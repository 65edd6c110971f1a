# Copyright (c) mmdetr authors. All rights reserved.
import os


def num_cores() -> int:
    """Count the cores that this process may run on.

    Returns:
        int: All of the machine's where the system cannot tell, as macOS.
    """
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
