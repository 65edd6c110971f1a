"""A ``python`` whose scripts find the libraries imported already.

On toy data most of a command's time is the import of torch and mmdet, and
their tidying up at the end. A server imports them once. The ``python`` made
here asks it for a fork that runs a script, a module (``-m``) or code (``-c``)
and ends without tidying up, and is the usual Python for anything else.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.training import tool_env

_CLIENT = """\
#!{python} -SE
import json, os, socket, sys
words = sys.argv[1:]
if not words or not words[0].endswith(('.py', '-m', '-c')):
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [b'%8d' % len(asked)], [0, 1, 2])
server.sendall(asked)
sys.exit(int(server.recv(8) or 1))
"""
# What nearly every tool comes to need.
_LIBRARIES = (
    'matplotlib.pyplot',
    'mmdet.apis',
    'pkg_resources',  # by which mmengine lists versions
    'torch._dynamo',  # for tensors on `meta`
    'project.apis',
    'project.checkpoints.converter',
    'project.engine',
    'project.models',
    'project.preflight',
    'tests.helpers.unformatted_configs',
)


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


def _run(words: list[str]) -> None:
    """Do what Python does with its command line."""
    first, *others = words
    paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[1:1] = [os.path.abspath(path) for path in paths if path]
    if first == '-c':
        sys.argv, sys.path[0] = ['-c', *others[1:]], ''
        exec(compile(others[0], '<string>', 'exec'), {'__name__': '__main__'})
    elif first == '-m':
        sys.argv, sys.path[0] = others, os.getcwd()
        runpy.run_module(others[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name='__main__')


def _status(words: list[str]) -> int:
    """Run a command line; its exit status, for which errors are printed."""
    try:
        _run(words)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _main() -> None:
    for name in _LIBRARIES:
        with suppress(ImportError):  # the tools say what they lack
            importlib.import_module(name)
    client = os.environ['WARM_PYTHON']
    gc.collect()
    gc.freeze()  # or the first collection of each fork writes to all of it
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.executable = client
    status = _status(words)
    # What Python does at its end, but for the two seconds in which it frees
    # all modules.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
    _main()
