# Copyright (c) mmdetr authors. All rights reserved.
"""Runs long commands: progress in one line, output in a log, clear errors."""

from __future__ import annotations  # so that an old Python can say so

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

_TAIL = 400  # lines of output that are searched for the cause of a failure
# The first pattern found in a failed command's output explains it.
_CAUSES = (
    (r'No space left on device', 'the disk is full'),
    (
        r'Killed signal terminated program',
        'the compiler ran out of memory; MAX_JOBS=1 needs less',
    ),
    (
        r'NewConnectionError|NameResolutionError|Network is unreachable|'
        r'Connection refused|ProxyError|SSLError|ReadTimeoutError',
        'the package index cannot be reached; look at the network, at '
        'https_proxy and at PIP_INDEX_URL',
    ),
    (
        r'from versions: none\)\n.*No matching distribution found for (\S+)',
        'the package index is out of reach, or has no {0} for this Python',
    ),
    (r'No matching distribution found for (\S+)', 'the index has no {0}'),
    (r':\d+:\d+: (?:fatal )?error: (.+)', 'the compiler stopped at: {0}'),
    (r'^\s*((?:\w+\.)*\w+Error: .+)', '{0}'),
    (r'^ERROR: (.+)', '{0}'),
)


_running: set[subprocess.Popen] = set()


class SetupError(Exception):
    """One sentence that says why the set-up cannot go on."""


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    title: str,
    describe: Callable[[str], str | None],
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command, showing how far it is.

    Args:
        command (Sequence[str]): Program and arguments.
        log (Path): File that its output is added to.
        title (str): What the command is for, shown all the time.
        describe (Callable): Takes a line of output and returns how far the
            command is, or None if the line does not tell.
        env (Mapping, optional): Its environment. Defaults to this one's.

    Raises:
        SetupError: If it ends with a status other than 0.
    """
    progress = Progress(title)
    tail: deque[str] = deque(maxlen=_TAIL)
    # Line by line, for those who watch the log.
    with log.open('a', buffering=1) as file, _start(command, env) as process:
        _running.add(process)
        print('$', *command, file=file, flush=True)
        try:
            for line in _lines_or_ticks(process):
                file.write(line)
                tail.append(line)
                progress.state = describe(line) or progress.state
                progress.show()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            _running.discard(process)
    progress.close('failed' if process.returncode else 'done')
    if process.returncode:
        cause = explain_failure(''.join(tail))
        raise SetupError(f'{title} failed: {cause} (whole output: {log}).')


@contextlib.contextmanager
def meanwhile(*works: Callable[[], None]) -> Iterator[None]:
    """Do some work while the block runs, and wait for it at the end.

    Until then it shows nothing. If the block fails, its commands are ended.

    Args:
        *works (Callable): Run commands, all at a time; what they raise is
            lost.
    """
    threads = [
        threading.Thread(target=_suppressing, args=[work], daemon=True)
        for work in works
    ]
    for thread in threads:
        Progress.held_back[thread] = []
        thread.start()
    try:
        yield
        for thread in threads:
            for line in Progress.held_back.pop(thread):
                print(line)
            thread.join()
    except BaseException:
        for process in [*_running]:
            os.killpg(process.pid, signal.SIGTERM)
        raise


def _suppressing(work: Callable[[], None]) -> None:
    with contextlib.suppress(SetupError, OSError, ValueError):
        work()


def explain_failure(output: str) -> str:
    """Find the cause of a failure in what a command printed.

    Args:
        output (str): Lines of pip or of a compiler.

    Returns:
        str: The cause, without a full stop.
    """
    for pattern, cause in _CAUSES:
        match = re.search(pattern, output, re.MULTILINE)
        if match:
            return cause.format(*match.groups()).strip().rstrip('.')
    lines = output.strip().splitlines() or ['no output']
    return lines[-1].strip()


class Progress:
    """One line that tells what is going on and for how long.

    On a terminal the line is written over; elsewhere, as in the log of a
    build server, a new one comes every half minute.

    Attributes:
        state: How far the work is.
        held_back: Last lines of threads that are not to write now.
    """

    held_back: ClassVar[dict[threading.Thread, list[str]]] = {}

    def __init__(self, title: str) -> None:
        self.title = title
        self.state = ''
        self._start = time.monotonic()
        self._is_terminal = sys.stdout.isatty()
        self._interval = 0.2 if self._is_terminal else 30.0
        self._next = self._start + self._interval

    def show(self) -> None:
        """Write the line, unless that was done a moment ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            self._write()

    def close(self, outcome: str) -> None:
        """Write the line for the last time."""
        self.state = outcome
        self._write(is_last=True)

    def _write(self, is_last: bool = False) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        line = f'  {self.title} [{minutes}:{seconds:02d}] {self.state}'
        held_back = self.held_back.get(threading.current_thread())
        if held_back is not None:
            if is_last:
                held_back.append(line)
            return
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            line = '\r' + line[:width].ljust(width)
        end = '\n' if is_last or not self._is_terminal else ''
        print(line, end=end, flush=True)


def _start(
    command: Sequence[str], env: Mapping[str, str] | None
) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env=env,
        # A group of its own, to end the compilers below it along with it.
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )


def _lines_or_ticks(process: subprocess.Popen) -> Iterator[str]:
    """Lines of the output as they come; an empty one if none came lately."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None  # see _start

    def read(output: Iterable[str]) -> None:
        for line in output:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, args=[process.stdout], daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            line = ''
        if line is None:
            return
        yield line
