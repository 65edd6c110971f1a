# Copyright (c) mmdetr authors. All rights reserved.
"""Waiting of the processes of a job for each other, with messages."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from project.utils.errors import UserError

DEFAULT_TIMEOUT = 600
INTERVAL = 1.0
TELL_AFTER = 5.0


def timeout_of_environment() -> int:
    """Read the variable ``TIMEOUT``, in seconds; 600 by default.

    Raises:
        UserError: If it is no positive integer.
    """
    text = os.environ.get('TIMEOUT', str(DEFAULT_TIMEOUT))
    if not text.isdecimal() or not int(text):
        raise UserError(
            f'TIMEOUT is {text!r}; expected how many seconds machines wait '
            'for each other.'
        )
    return int(text)


def wait_for_master(address: str, port: str, timeout: float) -> None:
    """Wait until the process of rank 0 accepts connections.

    Args:
        address (str): Name or address of its machine.
        port (str): Its port.
        timeout (float): Timeout in seconds.

    Raises:
        UserError: If it does not answer in time.
    """
    deadline, is_told = time.monotonic() + timeout, False
    while True:
        try:
            left = max(INTERVAL, min(TELL_AFTER, timeout))
            with socket.create_connection((address, int(port)), left):
                return
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
        if time.monotonic() >= deadline:
            raise UserError(
                f'The first process does not answer at {address}:{port} '
                f'({reason}); check that it is started there, MASTER_ADDR, '
                'the port and the firewall. TIMEOUT sets how many seconds to '
                'wait.'
            )
        if not is_told:
            is_told = True
            tell(
                f'Waiting for the first process at {address}:{port} for up '
                f'to {timeout:g} s ({reason}).'
            )
        time.sleep(INTERVAL)


def tell(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def told_if_slow(sentence: str) -> Iterator[None]:
    """Print a sentence if the block takes more than some seconds."""
    timer = threading.Timer(TELL_AFTER, tell, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
