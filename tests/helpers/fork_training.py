"""Trains the toy in forks of one process, which imports everything once.

Run as a program it reads orders from its input, one JSON object a line, and
answers each with the numbers of the processes that train, and then with their
exit statuses. It must not train itself: PyTorch's engine does not survive a
fork.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend
from mmengine.registry import RUNNERS

import project  # noqa: F401  registers the runner
from tests.helpers.training import WATCHED_CONFIG, toy_config


def main() -> None:
    """Fork a training for each order."""
    print('ready', flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pids = []
        for rank in range(order['world']):
            pid = os.fork()
            if pid == 0:
                train(order, rank)
            pids.append(pid)
        print(json.dumps(pids), flush=True)
        waited = (os.waitpid(pid, 0)[1] for pid in pids)
        statuses = [os.waitstatus_to_exitcode(status) for status in waited]
        print(json.dumps(statuses), flush=True)


def train(order: dict[str, Any], rank: int) -> None:
    """Train as a process of its own does, and end it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = dict(order['options'])
    if order['world'] > 1:
        options['launcher'] = 'pytorch'
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(order['world']),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(order['port']),
        )
    if order.get('kill_in_save') and rank == 0:
        kill_in_save(*order['kill_in_save'])
    cfg = toy_config(
        Path(order['data']), Path(order['work_dir']), WATCHED_CONFIG, **options
    )
    try:
        RUNNERS.build(cfg).train()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


def kill_in_save(which: int, number: int) -> None:
    """Send this process a signal when half of a checkpoint is written."""
    put, count = LocalBackend.put, 0

    def put_half(backend: LocalBackend, content: bytes, path: str) -> None:
        nonlocal count
        count += 1
        if count == which:
            with open(path, 'wb') as file:
                file.write(content[: len(content) // 2])
                file.flush()
                os.kill(os.getpid(), number)
        put(backend, content, path)

    LocalBackend.put = put_half


if __name__ == '__main__':
    main()
