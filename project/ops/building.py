# Copyright (c) mmdetr authors. All rights reserved.
"""Compiles the C++ op once for every torch.

A script, run by ``make setup`` and setup.py before the package is installed.
So it imports nothing of the package, and torch only where it is used.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / 'csrc'
SHIPPED = Path(__file__).parent / 'lib'
"""Folder of the library in a wheel that was built with a compiler."""

# Multiplications and additions are fused only where the source says so: all
# processors compute the same bits.
_FLAGS = (
    *('-std=c++20', '-O3', '-g0', '-DNDEBUG', '-fPIC'),
    *('-fvisibility=hidden', '-ffp-contract=off', '-fno-math-errno'),
    *('-fno-trapping-math', '-Wno-psabi'),
)
_CAPABILITIES: dict[str, tuple[str, ...]] = {'generic': ()}
if platform.machine() in ('x86_64', 'AMD64'):
    _CAPABILITIES['avx2'] = ('-mavx2', '-mfma')


class BuildError(Exception):
    """One sentence that says why the op cannot be compiled."""


def cache_folder() -> Path:
    """Folder of the libraries, shared by all checkouts of this user."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mmdetr' / 'ops'


def library_name(torch_version: str) -> str:
    """File name of the library, unique for its source, flags and torch.

    Args:
        torch_version (str): With its local part, such as ``2.13.0+cpu``.
    """
    contents = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    settings = repr((_FLAGS, _CAPABILITIES)).encode()
    digest = hashlib.sha256(b'\0'.join([*contents, settings])).hexdigest()
    machine = platform.machine()
    return f'attention-{digest[:12]}-torch{torch_version}-{machine}.so'


def find_library(torch_version: str) -> Path | None:
    """Look for a library that was built before.

    Returns:
        Path | None: None if there is none for this source and this torch.
    """
    name = library_name(torch_version)
    places = (SHIPPED / name, cache_folder() / name)
    return next((path for path in places if path.is_file()), None)


def ensure_library() -> Path:
    """Find the library, or build it, which takes half a minute.

    Raises:
        BuildError: If torch or a compiler is missing, or the build fails.
    """
    try:
        import torch
    except ImportError as error:
        raise BuildError('there is no torch to build it for') from error
    found = find_library(torch.__version__)
    if found is not None:
        return found
    compiler = os.environ.get('CXX', 'c++')
    if shutil.which(compiler) is None:
        raise BuildError(
            f'there is no C++ compiler ({compiler}): install one, on Debian '
            'with apt install g++'
        )
    target = cache_folder() / library_name(torch.__version__)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the rename is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch, target.name)
        _compile(compiler, Path(torch.__file__).parent, built)
        built.replace(target)
    return target


def _compile(compiler: str, torch_folder: Path, library: Path) -> None:
    """Compile all files in parallel and link them."""
    import torch

    abi = int(torch.compiled_with_cxx11_abi())
    commands: dict[Path, tuple[str, ...]] = {
        library.with_name(f'{name}.o'): (
            f'-DMMDETR_CAPABILITY={name}',
            *options,
            *('-c', str(SOURCES / 'sampling.cpp')),
        )
        for name, options in _CAPABILITIES.items()
    }
    commands[library.with_name('registration.o')] = (
        f'-D_GLIBCXX_USE_CXX11_ABI={abi}',
        *('-fopenmp', '-isystem', str(torch_folder / 'include')),
        *('-c', str(SOURCES / 'deformable_attention.cpp')),
    )
    _run_all(
        [compiler, *_FLAGS, *arguments, '-o', str(file)]
        for file, arguments in commands.items()
    )
    # torch brings OpenMP; a second runtime would start its own threads.
    link = [compiler, '-shared', *map(str, commands), '-o', str(library)]
    link += [f'-L{torch_folder / "lib"}', '-ltorch_cpu', '-lc10']
    _run_all([link])


def _run_all(commands: Iterator[list[str]] | Sequence[list[str]]) -> None:
    """Run commands in parallel; raise the first error of a compiler."""
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        for command in commands
    ]
    outputs = [process.communicate()[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            lines = output.strip().splitlines() or ['no output']
            said = re.search(r'error: (.+)', output)
            raise BuildError(
                'the compiler stopped at: ' + (said[1] if said else lines[-1])
            )


def main() -> int:
    """Build the library and print its path.

    Returns:
        int: Exit status, 1 if it cannot be built.
    """
    try:
        print(ensure_library())
    except (BuildError, OSError) as error:
        print(
            f'The C++ op of deformable attention is not built: {error}. '
            "PyTorch's form of it serves, which makes training on a CPU take "
            '1.7 times as long.',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
