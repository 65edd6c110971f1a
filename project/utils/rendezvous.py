# Copyright (c) mmdetr authors. All rights reserved.
"""Says which machine a process waits for, and for how long."""

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
    """Read how long machines wait for each other, in seconds.

    Returns:
        int: The variable ``TIMEOUT``, 600 if it is not set.

    Raises:
        UserError: If it is no number above 0.
    """
    text = os.environ.get('TIMEOUT', str(DEFAULT_TIMEOUT))
    if not text.isdecimal() or not int(text):
        raise UserError(
            f'TIMEOUT is {text!r}; expected how many seconds machines wait '
            'for each other.'
        )
    return int(text)


def wait_for_master(address: str, port: str, timeout: float) -> None:
    """Wait until something answers where the first process is to be found.

    Args:
        address (str): Name or address of its machine.
        port (str): Its port.
        timeout (float): How long to wait, in seconds.

    Raises:
        UserError: If nothing answers in this time.
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
    """Say at once what is being waited for."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def told_if_slow(sentence: str) -> Iterator[None]:
    """Say what is being waited for if it takes more than some seconds."""
    timer = threading.Timer(TELL_AFTER, tell, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
