# Copyright (c) mmdetr authors. All rights reserved.
"""Compiles mmcv with its ops once, and keeps the wheel for later set-ups.

pip keeps a wheel of its own, under a name that does not tell for which torch
it was compiled; here every torch has its folder.
"""

from __future__ import annotations  # so that an old Python can say so

import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from commands import SetupError, run_logged
from joined_sources import join_sources

_PROBE_TORCH = """
import json, os, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
found = {torch.cuda.get_device_capability(i) for i in range(count)}
archs = ' '.join(f'{major}.{minor}' for major, minor in sorted(found))
print(json.dumps(dict(
    python=sys.implementation.cache_tag,
    torch=torch.__version__,
    cuda=torch.version.cuda if count or os.getenv('FORCE_CUDA') == '1' else '',
    archs=os.getenv('TORCH_CUDA_ARCH_LIST') or archs,
    has_nvcc=CUDA_HOME is not None,
)))
"""
_PROBE_OPS = """
import mmcv
from mmcv.ops import get_compiling_cuda_version
cuda = get_compiling_cuda_version()
print(mmcv.__version__, 'cpu' if cuda == 'not available' else 'cuda')
"""
_TRY_COMPILER = '#include <Python.h>\n#include <vector>\n'
# Instead of the flags that Python was built with: their -g doubles the time,
# and makes an extension of a few MB one of 80.
_CFLAGS = '-O2 -g0 -DNDEBUG -fwrapv'
_GIB_PER_JOB = 3  # what the largest of the joined files takes


@dataclass(frozen=True)
class Target:
    """The environment that mmcv is installed into.

    Attributes:
        python: Its interpreter.
        log: File for the output of pip and compilers.
        environ: Environment variables to run pip with.
    """

    python: Path
    log: Path
    environ: Mapping[str, str]

    def run_python(self, code: str) -> subprocess.CompletedProcess:
        """Run code in it, keeping what it prints."""
        return subprocess.run(
            [str(self.python), '-c', code],
            env=self.environ,
            capture_output=True,
            text=True,
        )


@dataclass(frozen=True)
class TorchBuild:
    """The torch that mmcv is compiled against, as it reports itself.

    Attributes:
        python: Such as ``cpython-311``.
        torch: Version with its local part, such as ``2.13.0+cpu``.
        cuda: CUDA version to compile ops for; empty for the CPU alone.
        archs: GPU architectures to compile for, such as ``9.0``.
        has_nvcc: Whether torch finds a CUDA toolkit.
    """

    python: str
    torch: str
    cuda: str
    archs: str
    has_nvcc: bool

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return 'cuda' if self.cuda else 'cpu'

    @property
    def key(self) -> str:
        """Folder name for wheels that fit this build."""
        parts = [self.python, f'torch{self.torch}', self.device]
        if self.cuda:
            parts += [self.cuda, self.archs]
        return re.sub(r'[^\w.+-]+', '_', '-'.join(parts))


def ensure_mmcv(target: Target, version: str, name: str = 'mmcv') -> None:
    """Have mmcv in an environment, with ops made for the torch there.

    Args:
        target (Target): The environment. torch, mmengine and the tools for
            building have to be installed in it.
        version (str): Version of mmcv.
        name (str): Its distribution. Defaults to OpenMMLab's.

    Raises:
        SetupError: If it cannot be compiled, or its ops cannot be imported.
    """
    builds = _suitable_builds(probe_torch(target), target.environ)
    wanted = {f'{version} {build.device}' for build in builds}
    if probe_ops(target) in wanted:
        return
    for build in builds:
        for wheel in _kept_wheels(build, version, name):
            install_wheel(target, wheel)
            if probe_ops(target) in wanted:
                return
            wheel.unlink()
    _announce(target, builds)
    _compile_and_install(target, f'{name}=={version}', builds[-1])


def compile_ahead(
    target: Target, version: str, name: str = 'mmcv'
) -> Callable[[], None] | None:
    """Look whether mmcv has to be compiled, for which torch is enough.

    Args:
        target (Target): The environment. torch and the tools for building
            have to be installed in it.
        version (str): Version of mmcv.
        name (str): Its distribution. Defaults to OpenMMLab's.

    Returns:
        Callable, optional: Makes the wheel that :func:`ensure_mmcv` will
        find; if it fails, that one tries again and says why. None if there
        is something to be tried first.

    Raises:
        SetupError: If there is no compiler.
    """
    builds = _suitable_builds(probe_torch(target), target.environ)
    wanted = {f'{version} {build.device}' for build in builds}
    kept = [_kept_wheels(build, version, name) for build in builds]
    if any(kept) or probe_ops(target) in wanted:
        return None
    _announce(target, builds)

    def work() -> None:
        requirement = f'{name}=={version}'
        with tempfile.TemporaryDirectory(prefix='mmcv-wheel-') as scratch:
            archive = download_source(target, requirement, Path(scratch))
            compile_wheel(target, joined_source(archive), builds[-1], name)

    return work


def _kept_wheels(build: TorchBuild, version: str, name: str) -> list[Path]:
    """Wheels of earlier set-ups."""
    folder = cache_folder() / build.key
    return sorted(folder.glob(f'{_stem(name)}-{version}-*.whl'))


def _announce(target: Target, builds: Sequence[TorchBuild]) -> None:
    """Check the compilers, and say that they will be busy."""
    if len(builds) > 1:
        print(
            "  There is a GPU, but no nvcc: mmcv's ops are compiled for the "
            'CPU alone. With the\n  CUDA toolkit installed and CUDA_HOME set '
            'they will be compiled for the GPU, too.'
        )
    build = builds[-1]
    check_compilers(target, build)
    duration = 'half an hour or more' if build.cuda else 'some minutes'
    print(
        f'  The ops of mmcv have to be compiled once for torch {build.torch}: '
        f'{duration}\n  on two cores. The wheel is kept in {cache_folder()}.'
    )


def _suitable_builds(
    build: TorchBuild, environ: Mapping[str, str]
) -> list[TorchBuild]:
    """Builds whose wheels will do, the last of which can be compiled."""
    is_forced = environ.get('FORCE_CUDA') == '1'
    if not build.cuda or build.has_nvcc or is_forced:
        return [build]
    return [build, replace(build, cuda='', archs='')]


def _compile_and_install(
    target: Target, requirement: str, build: TorchBuild
) -> None:
    """Compile joined files; where they do not work, file by file."""
    name, version = requirement.split('==')
    with tempfile.TemporaryDirectory(prefix='mmcv-wheel-') as scratch:
        archive = download_source(target, requirement, Path(scratch))
        try:
            source = joined_source(archive)
            install_wheel(target, compile_wheel(target, source, build, name))
            if probe_ops(target) == f'{version} {build.device}':
                return
        except (SetupError, OSError, ValueError) as error:
            with target.log.open('a') as log:
                print(error, file=log)
        print('  Joined files do not compile here; compiling one by one.')
        install_wheel(target, compile_wheel(target, archive, build, name))
    found = probe_ops(target)
    if found != f'{version} {build.device}':
        raise SetupError(
            f'mmcv {version} was compiled, but its ops are not those of '
            f'torch {build.torch} for {build.device}: {found}'
        )


def cache_folder() -> Path:
    """Folder of the wheels kept for all checkouts of this user."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mmdetr' / 'wheels'


def has_ops(wheel: Path) -> bool:
    """Whether a wheel holds the compiled extension.

    mmcv's build leaves it out without an error when it finds no torch.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    return any(re.fullmatch(r'mmcv/_ext\..*\.so', name) for name in names)


def describe_ninja(line: str) -> str | None:
    """Read ``[3/79] c++ ...``, ninja's count of finished steps."""
    match = re.search(r'\[(\d+)/(\d+)\]', line)
    return match and f'{match[1]} of {match[2]} files compiled'


def probe_torch(target: Target) -> TorchBuild:
    """Ask the torch of an environment what it was built for.

    Args:
        target (Target): The environment.

    Returns:
        TorchBuild: The answer.

    Raises:
        SetupError: If torch does not start.
    """
    result = target.run_python(_PROBE_TORCH)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1]
        raise SetupError(f'torch was installed but does not start: {last}.')
    return TorchBuild(**json.loads(result.stdout.splitlines()[-1]))


def probe_ops(target: Target) -> str:
    """Version and device of the mmcv installed, or why it has no ops.

    Args:
        target (Target): The environment.

    Returns:
        str: Such as ``'2.1.0 cpu'``, or the last line of the error.
    """
    result = target.run_python(_PROBE_OPS)
    output = result.stderr if result.returncode else result.stdout
    return (output.strip().splitlines() or ['no output'])[-1]


def check_compilers(target: Target, build: TorchBuild) -> None:
    """Find out in a second what would end the build after minutes.

    Args:
        target (Target): The environment.
        build (TorchBuild): The torch to compile for.

    Raises:
        SetupError: If a compiler or the headers of Python are missing.
    """
    if build.cuda and not build.has_nvcc:
        raise SetupError(
            'FORCE_CUDA=1 asks for ops of the GPU, but there is no nvcc to '
            f'compile them: install the CUDA toolkit {build.cuda} and set '
            'CUDA_HOME.'
        )
    compiler = target.environ.get('CXX', 'c++')
    if shutil.which(compiler, path=target.environ.get('PATH')) is None:
        raise SetupError(
            f'mmcv has to be compiled, and there is no C++ compiler '
            f'({compiler}): install one, on Debian with apt install g++.'
        )
    where = 'import sysconfig; print(sysconfig.get_path("include"))'
    include = target.run_python(where).stdout.strip()
    result = subprocess.run(
        [compiler, '-I', include, '-fsyntax-only', '-x', 'c++', '-'],
        input=_TRY_COMPILER,
        capture_output=True,
        text=True,
    )
    if 'Python.h' in result.stderr:
        raise SetupError(
            'mmcv has to be compiled, and the headers of Python are missing: '
            'install them, on Debian with apt install python3-dev.'
        )
    if result.returncode:
        raise SetupError(
            f'mmcv has to be compiled, and {compiler} cannot compile an empty '
            f'file: {result.stderr.strip().splitlines()[0]}'
        )


def _stem(name: str) -> str:
    """How the wheels of a distribution begin."""
    return name.replace('-', '_')


def download_source(target: Target, requirement: str, scratch: Path) -> Path:
    """Get the archive of mmcv's source.

    Args:
        target (Target): The environment.
        requirement (str): Such as ``'mmcv==2.1.0'``.
        scratch (Path): Folder to put it into.

    Returns:
        Path: The archive.
    """
    command = [str(target.python), '-m', 'pip', 'download', '--no-deps']
    command += ['--no-build-isolation', '--no-binary', ':all:']
    run_logged(
        [*command, requirement, '--dest', str(scratch)],
        target.log,
        title=f'downloading {requirement}',
        describe=lambda line: None,
        env=target.environ,
    )
    return next(scratch.glob('*.tar.gz'))


def joined_source(archive: Path) -> Path:
    """Unpack the source and join its files.

    Args:
        archive (Path): The source.

    Returns:
        Path: Its folder.

    Raises:
        SetupError: If they are not where they used to be.
    """
    folder = archive.parent / 'source'
    shutil.unpack_archive(archive, folder)
    (source,) = folder.iterdir()
    if not join_sources(source, _num_jobs()):
        raise SetupError(f'{archive.name} is laid out in another way.')
    return source


def compile_wheel(
    target: Target, source: Path, build: TorchBuild, name: str = 'mmcv'
) -> Path:
    """Build the wheel into the cache.

    Args:
        target (Target): The environment.
        source (Path): Folder or archive of the source.
        build (TorchBuild): The torch to compile for.
        name (str): Distribution. Defaults to OpenMMLab's.

    Returns:
        Path: The wheel.

    Raises:
        SetupError: If it was built without its compiled ops.
    """
    command = [str(target.python), '-m', 'pip', 'wheel', '-v', '--no-deps']
    command += ['--no-build-isolation', '--no-cache-dir', '--wheel-dir']
    environ = {'MAX_JOBS': str(_num_jobs()), 'CFLAGS': _CFLAGS}
    environ |= {**target.environ, 'MMCV_WITH_OPS': '1'}
    if not build.cuda:  # or mmcv would ask for nvcc where it sees a GPU
        environ |= {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}
    with tempfile.TemporaryDirectory(prefix='mmcv-wheel-') as scratch:
        run_logged(
            [*command, scratch, str(source)],
            target.log,
            title='compiling mmcv',
            describe=describe_ninja,
            env=environ,
        )
        wheel = next(Path(scratch).glob(f'{_stem(name)}-*.whl'))
        if not has_ops(wheel):
            raise SetupError(
                'mmcv was built, but without its compiled ops; '
                f'{target.log} says why.'
            )
        return _keep(wheel, cache_folder() / build.key)


def _num_jobs() -> int:
    """As many compilers as there are cores, and memory for."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    fitting = memory // (_GIB_PER_JOB * 2**30)
    return max(1, min(len(os.sched_getaffinity(0)), fitting))


def _keep(wheel: Path, folder: Path) -> Path:
    """Move a wheel into the cache; all of it appears there, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f'{wheel.name}.part'
    shutil.move(wheel, partial)
    return partial.rename(folder / wheel.name)


def install_wheel(target: Target, wheel: Path) -> None:
    """Install a wheel in the place of what is there.

    Args:
        target (Target): The environment.
        wheel (Path): The wheel.
    """
    command = [str(target.python), '-m', 'pip', 'install', '--no-deps']
    run_logged(
        [*command, '--force-reinstall', str(wheel)],
        target.log,
        title=f'installing {wheel.name}',
        describe=lambda line: None,
        env=target.environ,
    )
