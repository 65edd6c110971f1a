# Copyright (c) mmdetr authors. All rights reserved.
"""Makes ``.venv`` with everything that runs this project: ``make setup``.

``make setup STACK=onedl`` makes ``.venv-onedl`` with the maintained forks of
mmcv, mmdet and mmengine.

Run by the Python that the environment is made of, before anything is
installed; hence the standard library only. Nothing is done where nothing has
changed since the last time.
"""

from __future__ import annotations  # so that an old Python can say so

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from commands import SetupError, meanwhile, run_logged
from mmcv_wheel import Target, cache_folder, compile_ahead, ensure_mmcv

ROOT = Path(__file__).resolve().parents[2]
STACK = os.environ.get('STACK', '')  # see read_stack
VENV = ROOT / '-'.join(filter(None, ['.venv', STACK]))
PYTHON = VENV / 'bin' / 'python'
LOG = VENV / 'setup.log'
STAMP = VENV / 'setup.json'
PINS = ROOT / 'requirements.txt'
# Whatever decides what is installed.
SOURCES = (
    'requirements.txt',
    *(['requirements-onedl.txt'] if STACK else []),
    'setup.cfg',
    'setup.py',
    'pyproject.toml',
    'project/ops/building.py',
    'project/ops/csrc/deformable_attention.cpp',
    'project/ops/csrc/sampling.cpp',
    'project/ops/csrc/sampling.h',
)
BUILD_TOOLS = ('pip', 'setuptools', 'wheel', 'ninja', 'packaging', 'psutil')
SUPPORTED = ((3, 11), (3, 13))
# Variables that send an installation elsewhere than into .venv.
MISLEADING = (
    'PIP_PREFIX',
    'PIP_TARGET',
    'PIP_USER',
    'PYTHONHOME',
    'PYTHONPATH',
)
QUIET_PIP = {'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PIP_NO_INPUT': '1'}
SHOW_BYTES = ('--progress-bar', 'raw')  # not known to the pip of a new venv


def main() -> int:
    """Bring ``.venv`` up to date.

    Returns:
        int: Exit status, 1 with one sentence on stderr if it cannot be.
    """
    try:
        read_stack(STACK)
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    if _read_stamp() == fingerprint():
        return 0
    start = time.monotonic()
    print(f'Setting up {VENV}')
    try:
        with _alone():
            set_up()
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up: interrupted; run it again to go on.', file=sys.stderr)
        return 130
    STAMP.write_text(json.dumps(fingerprint()))
    print(f'Set up in {time.monotonic() - start:.0f} s.')
    return 0


def read_pins(path: Path) -> dict[str, str]:
    """Read a requirements file of exact versions.

    Args:
        path (Path): File with lines ``name==version`` and comments; of
            markers it has ``; sys_platform == 'linux'`` alone.

    Returns:
        dict[str, str]: Versions by name, in the order of the file, of what
        is for this system.
    """
    lines = (line.partition('#')[0].strip() for line in path.open())
    parts = (line.partition(';') for line in lines if line)
    return dict(
        pin.strip().split('==')
        for pin, _, marker in parts
        if not marker or sys.platform in marker
    )


def read_stack(stack: str) -> dict[str, str]:
    """Read the versions to install.

    Args:
        stack (str): ``onedl`` for the maintained forks of mmcv, mmdet and
            mmengine; empty for OpenMMLab's.

    Returns:
        dict[str, str]: Versions by name.

    Raises:
        SetupError: If there is no such stack.
    """
    pins = read_pins(PINS)
    if not stack:
        return pins
    forks = ROOT / f'requirements-{stack}.txt'
    if not forks.is_file():
        raise SetupError(
            f'STACK is {stack!r}; expected onedl, or nothing for mmdet 3.3.'
        )
    for name in ('mmcv', 'mmdet', 'mmengine'):
        del pins[name]
    return pins | read_pins(forks)


def describe_pip(line: str) -> str | None:
    """Say in a word what a line of pip's output is about."""
    match = re.match(r'\s*Progress (\d+) of (\d+)', line)
    if match:
        done, size = (int(number) / 1e6 for number in match.groups())
        return f'downloading, {done:.0f} of {size:.0f} MB'
    match = re.match(r'\s*(Collecting|Downloading|Installing)\b (\S+)', line)
    if match is None:
        return None
    if match[1] == 'Installing':
        return 'installing'
    return f'{match[1].lower()} {match[2].rpartition("/")[2]}'


def set_up() -> None:
    """All steps; each leaves alone what is right already."""
    pins = read_stack(STACK)
    mmcv = 'onedl-mmcv' if STACK else 'mmcv'
    _make_venv()
    LOG.write_text('')
    _pip('tools for building', _pinned(pins, BUILD_TOOLS))
    _pip(
        f'torch {pins["torch"]}',
        [*SHOW_BYTES, '--constraint', str(PINS), *_pinned(pins, ['torch'])],
    )
    _remove_second_opencv()
    rest = [name for name in pins if name != mmcv]
    if torch_brings_triton():
        rest.remove('triton')
    # Of the fork of mmdet there is only the source.
    options = [*SHOW_BYTES, '--no-deps', '--no-build-isolation']
    # Compilers need torch alone.
    ahead = Target(PYTHON, LOG.with_name('setup-mmcv.log'), _environ())
    compiling = compile_ahead(ahead, pins[mmcv], mmcv)
    with meanwhile(*filter(None, [compiling, build_op])):
        _pip(f'{len(rest)} packages', [*options, *_pinned(pins, rest)])
    ensure_mmcv(Target(PYTHON, LOG, _environ()), pins[mmcv], mmcv)
    _pip(
        'this package',
        ['--no-deps', '--no-build-isolation', '--editable', str(ROOT)],
    )
    _check()


def _make_venv() -> None:
    """Create ``.venv`` unless its Python starts."""
    starts = [str(PYTHON), '-m', 'pip', '--version']
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(starts, capture_output=True).returncode == 0:
            return
    oldest, newest = SUPPORTED
    if not oldest <= sys.version_info[:2] <= newest:
        raise SetupError(
            f'Python {".".join(map(str, oldest))} to '
            f'{".".join(map(str, newest))} is needed, and '
            f'{sys.executable} is {sys.version.split()[0]}: run make '
            'PYTHON=python3.11.'
        )
    command = [sys.executable, '-m', 'venv', '--clear', str(VENV)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = (result.stdout + result.stderr).strip().splitlines()
        raise SetupError(
            f'{sys.executable} cannot create {VENV}; on Debian run apt '
            f'install python3-venv. It said: {said[0] if said else "nothing"}'
        )


def _pip(title: str, arguments: Iterable[str]) -> None:
    """Install something into ``.venv``, showing how far it is."""
    run_logged(
        [str(PYTHON), '-m', 'pip', 'install', *arguments],
        LOG,
        title=title,
        describe=describe_pip,
        env=_environ(),
    )


def _pinned(pins: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [f'{name}=={pins[name]}' for name in names]


def _remove_second_opencv() -> None:
    """Make room for the headless OpenCV, which fills the same folder."""
    if not any(_installed('opencv_python-*.dist-info')):
        return
    command = [str(PYTHON), '-m', 'pip', 'uninstall', '--yes']
    run_logged(
        [*command, 'opencv-python', 'opencv-python-headless'],
        LOG,
        title='removing opencv-python',
        describe=lambda line: None,
        env=_environ(),
    )


def torch_brings_triton() -> bool:
    """Whether this torch needs a version of Triton of its own.

    Returns:
        bool: Whether the metadata of the torch in ``.venv`` ask for one.
    """
    return any(
        re.search('^Requires-Dist: triton', path.read_text(), re.MULTILINE)
        for path in _installed('torch-*.dist-info/METADATA')
    )


def build_op() -> None:
    """Compile our own op; the package works without it, only slower."""
    with contextlib.suppress(SetupError):
        run_logged(
            [str(PYTHON), str(ROOT / 'project' / 'ops' / 'building.py')],
            LOG.with_name('setup-op.log'),
            title='compiling deformable attention for the CPU',
            describe=lambda line: None,
            env=_environ(),
        )


def _check() -> None:
    """Show the report on the environment; stop if it finds an error."""
    result = subprocess.run(
        [str(PYTHON), '-m', 'project.env'],
        cwd=ROOT,
        env=_environ(),
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        print(result.stdout, end='')
        return
    errors = re.findall(r'^error: (.+)', result.stdout, re.MULTILINE)
    raise SetupError(' '.join(errors) or result.stderr.strip())


def _environ() -> dict[str, str]:
    """This environment without what would mislead pip."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in MISLEADING
    }
    return {**environ, **QUIET_PIP}


def _installed(pattern: str) -> Iterator[Path]:
    """Files of ``.venv``, found without starting its Python."""
    for folder in VENV.glob('lib/python*/site-packages'):
        yield from folder.glob(pattern)


def fingerprint() -> dict[str, Any]:
    """All that tells whether the environment is the one set up last.

    Returns:
        dict[str, Any]: The folder, and what the sources and the installed
        packages are like, as JSON holds it.
    """
    sources = [ROOT / name for name in SOURCES]
    sources += sorted(Path(__file__).parent.glob('*.py'))
    contents = b''.join(path.read_bytes() for path in sources)
    return dict(
        root=str(ROOT),
        python_starts=PYTHON.exists(),
        sources=hashlib.sha256(contents).hexdigest(),
        installed={
            path.name: path.stat().st_mtime_ns
            for pattern in ('*.dist-info', 'mmcv/_ext.*')
            for path in sorted(_installed(pattern))
        },
    )


def _read_stamp() -> dict[str, Any] | None:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for other set-ups, which may be compiling the same wheel."""
    folder = cache_folder().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'set-up.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('  waiting for another set-up to end', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    sys.exit(main())
