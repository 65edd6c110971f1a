"""A ``python`` whose scripts find the libraries imported already.

On toy data most of a command's time is the import of torch and mmdet. A server
imports them once. The ``python`` made here asks it for a fork that runs a
script, and is the usual Python for anything else.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.training import tool_env

_CLIENT = """\
#!{python} -SE
import json, os, socket, sys
words = sys.argv[1:]
if not words or not words[0].endswith('.py'):
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [b'%8d' % len(asked)], [0, 1, 2])
server.sendall(asked)
sys.exit(int(server.recv(8) or 1))
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Start a server.

    Args:
        folder: An empty folder, for ``python`` and the server's socket.

    Yields:
        Path: The folder, to be the first of ``PATH``.
    """
    address = str(folder / 'socket')
    client = folder / 'python'
    text = _CLIENT.format(python=sys.executable, address=address)
    client.write_text(text)
    client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, '-m', __name__, str(listening.fileno())],
            env=tool_env(WARM_PYTHON=str(client)),
            pass_fds=[listening.fileno()],
        )
    try:
        yield folder
    finally:
        server.kill()
        server.wait()


def _serve(listening: socket.socket) -> list[str]:
    """Fork for each request; return its words, in the process that is new."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    tests = os.getppid()
    while True:
        readable, _, _ = select.select([listening], [], [], 10)
        if os.getppid() != tests:  # they were killed
            sys.exit()
        if not readable:
            continue
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, streams, *_ = socket.recv_fds(connection, 8, 3)
        with connection.makefile('rb') as request:
            words, folder, environ = json.loads(request.read(int(size)))
        worker = os.fork()
        if worker:
            status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
            connection.sendall(b'%d' % (status % 256))
            os._exit(0)
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
        return words


def _main() -> None:
    import mmdet.apis  # noqa: F401

    import project.apis
    import project.engine
    import project.models  # noqa: F401

    client = os.environ['WARM_PYTHON']
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.executable = client
    sys.argv = words
    sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
    runpy.run_path(words[0], run_name='__main__')


if __name__ == '__main__':
    _main()
