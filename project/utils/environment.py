# Copyright (c) mmdetr authors. All rights reserved.
"""Checks whether the package can run in this environment.

Only the standard library is imported at the top, since even ``import torch``
may fail.
"""

import ast
import importlib
import os
import platform
import re
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .cores import num_cores

DISTRIBUTION = 'mmdetr'
REPORT_MODULE = 'project.env'
TOOLS_MODULE = 'project'
STACKS = {
    'openmmlab': ('mmengine>=0.10.7,<1', 'mmcv>=2.1,<2.2', 'mmdet>=3.3,<3.4'),
    'onedl': (
        'onedl-mmengine>=0.10.12,<1',
        'onedl-mmcv>=2.3.6,<2.4',
        'onedl-mmdetection>=3.5.1,<3.6',
    ),
}
"""OpenMMLab's releases and their maintained forks, in the same order, which
install into the same folders. They are not in pyproject.toml, as pip would
install one over the other."""

_MISSING = 'missing'
_OPENCVS = ('opencv-python', 'opencv-python-headless')
_BUILD_MMCV = (
    'run make setup{option} in the checkout, or pip install "setuptools<82" '
    'wheel ninja psutil && pip install --no-build-isolation --no-cache-dir '
    '--no-deps --force-reinstall {pin}, which compiles for about ten minutes'
)
_MMCV_BUILDS = {
    'openmmlab': dict(option='', pin='mmcv==2.1.0'),
    'onedl': dict(option=' STACK=onedl', pin='onedl-mmcv==2.3.6'),
}
# Modules in the order of their dependencies, with the remedy if the
# distribution is installed but cannot be imported.
_TRIALS = {
    'msgspec': 'reinstall msgspec',
    'numpy': 'reinstall numpy',
    'torch': 'reinstall torch',
    'scipy.optimize': 'reinstall scipy for this numpy',
    'pycocotools.mask': 'reinstall pycocotools for this numpy',
    'cv2': (
        f'run pip uninstall -y {" ".join(_OPENCVS)} && '
        'pip install opencv-python-headless, which needs no libGL'
    ),
    'torchvision': (
        'it does not belong to this torch and stops every training; run pip '
        'uninstall torchvision or install the build made for this torch'
    ),
    'mmengine': 'reinstall mmengine',
    'mmcv': 'reinstall mmcv',
    'mmcv.ops': '',  # see _build_mmcv
    'mmdet': 'reinstall mmdet',
}
_OPTIONAL = ('torchvision',)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: Name of the requirement.
        value: What was found, such as a version.
        problem: The problem and its solution in one sentence, or ''.
        is_fatal: Whether the package cannot run with the problem.
    """

    name: str
    value: str
    problem: str = ''
    is_fatal: bool = False


def inspect_environment() -> list[Finding]:
    """Check all requirements of the package, also by importing them.

    Returns:
        list[Finding]: In the order in which problems should be solved, up to
            the first one that prevents further checks.
    """
    findings = [_machine(), _package(), *_versions()]
    if any(finding.value == _MISSING for finding in findings):
        return findings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        failure = _first_failing_import()
        if failure is not None:
            return [*findings, failure]
        return [*findings, _device(), _opencv(), _ops()]


def can_register() -> bool:
    """Whether ``import project`` may import mmdet and mmcv.

    Returns:
        bool: False only while ``python -m project.env`` or ``python -m
            project`` imports its own package: the report has to come up in a
            broken environment, and the tools answer at once.

    Raises:
        ImportError: If mmdet or mmcv's ops cannot be imported. The message is
            the first fatal problem of :func:`inspect_environment`.
    """
    # While runpy looks for the module, argv holds '-m' in place of its name.
    if sys.argv[:1] == ['-m']:
        started = sys.orig_argv[sys.orig_argv.index('-m') + 1 :][:1]
        if started in ([REPORT_MODULE], [TOOLS_MODULE]):
            return False
    try:
        # Only the compiled part, since all of mmcv.ops takes a second.
        for name in ('mmdet', 'torch', 'mmcv._ext'):
            importlib.import_module(name)
    except Exception as error:
        fatal = (f.problem for f in inspect_environment() if f.is_fatal)
        problem = next(fatal, f'{type(error).__name__}: {error}')
        raise ImportError(
            f'{problem} (python -m {REPORT_MODULE} shows the whole picture)'
        ) from error
    return True


def _machine() -> Finding:
    """Python, processors and memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return Finding(
        'python',
        f'{platform.python_version()}, {platform.system()} '
        f'{platform.machine()}, {num_cores()} cores, {memory / 2**30:.0f} GiB',
    )


def _package() -> Finding:
    """This package is installed, not only in the current folder."""
    version = _version(DISTRIBUTION)
    if version == _MISSING:
        return Finding(
            DISTRIBUTION,
            'not installed',
            'The package is found through the current folder only: run pip '
            'install --no-build-isolation -e . in the checkout.',
        )
    return Finding(DISTRIBUTION, version)


def installed_stack() -> str:
    """Key of :data:`STACKS`: the forks if any of them is installed."""
    forks = map(_name_of, STACKS['onedl'])
    is_there = any(_version(name) != _MISSING for name in forks)
    return 'onedl' if is_there else 'openmmlab'


def _name_of(requirement: str) -> str:
    """Name of the distribution in a requirement."""
    return re.split(r'[^\w.-]', requirement, maxsplit=1)[0]


def _build_mmcv() -> str:
    """Remedy for an mmcv without the right ops."""
    build = _BUILD_MMCV.format(**_MMCV_BUILDS[installed_stack()])
    return build + _missing_compiler()


def _mixed_stacks() -> Iterator[Finding]:
    """Find distributions that overwrite each other."""
    if installed_stack() == 'openmmlab':
        return
    for theirs, fork in zip(
        STACKS['openmmlab'], map(_name_of, STACKS['onedl']), strict=True
    ):
        name = _name_of(theirs)
        version = _version(name)
        if version != _MISSING:
            problem = (
                f'{name} and {fork} fill the same folder: run pip uninstall '
                f'-y {name} {fork}, then install the one that you want anew.'
            )
            yield Finding(name, version, problem, True)


def _versions() -> Iterator[Finding]:
    """Compare every required distribution with its range."""
    yield from _mixed_stacks()
    of_stacks = {
        _name_of(line) for ranges in STACKS.values() for line in ranges
    }
    others = [
        line for line in _requirements() if _name_of(line) not in of_stacks
    ]
    for requirement in [*others, *STACKS[installed_stack()]]:
        name = _name_of(requirement)
        version = _version(name)
        remedy = f'run pip install "{requirement}"'
        if name.endswith('mmcv'):
            remedy = _build_mmcv()
        if version == _MISSING:
            problem = f'{name} is not installed: {remedy}.'
        elif not _is_in_range(version, requirement):
            problem = f'{requirement} is needed, not {version}: {remedy}.'
        else:
            problem = ''
        yield Finding(name, version, problem, bool(problem))


def _is_in_range(version: str, requirement: str) -> bool:
    if _version('packaging') == _MISSING:
        return True  # unknown; the missing package is a finding itself
    from packaging.requirements import Requirement

    specifier = Requirement(requirement).specifier
    return specifier.contains(version, prereleases=True)


def _requirements() -> list[str]:
    """The requirements in pyproject.toml, as installed or in the checkout."""
    if _version(DISTRIBUTION) != _MISSING:
        lines = metadata.requires(DISTRIBUTION) or []
        return [line for line in lines if 'extra ==' not in line]
    path = Path(__file__).resolve().parents[2] / 'pyproject.toml'
    text = path.read_text() if path.is_file() else ''
    # Python 3.10 has no TOML parser; a list of strings is valid Python.
    found = re.search(r'^dependencies = (\[.*?^\])', text, re.M | re.S)
    return ast.literal_eval(found[1]) if found else []


def _first_failing_import() -> Finding | None:
    """Import all modules in order; return the first failure, if any."""
    for name, remedy in _TRIALS.items():
        if name in _OPTIONAL and _version(name) == _MISSING:
            continue
        error = _import_error(name)
        if error:
            if name == 'mmcv.ops':
                remedy = _build_mmcv()
            problem = f'import {name} fails ({error}): {remedy}.'
            return Finding(f'import {name}', 'fails', problem, True)
    return None


def _device() -> Finding:
    """The devices that torch sees."""
    import torch

    from .accelerators import accelerators

    driver, names = accelerators()
    if names:
        value = f'{driver}, {len(names)} x {" / ".join(sorted(set(names)))}'
    elif torch.version.cuda:
        value = f'CPU; torch, built for CUDA {torch.version.cuda}, sees no GPU'
    else:
        value = 'CPU; torch is built without CUDA'
    return Finding('device', value)


def _opencv() -> Finding:
    """Check that only one distribution of OpenCV is installed."""
    there = [name for name in _OPENCVS if _version(name) != _MISSING]
    value = ', '.join(f'{name} {_version(name)}' for name in there)
    problem = ''
    if len(there) > 1:
        problem = (
            'Two distributions of OpenCV write over each other: '
            + _TRIALS['cv2']
            + '.'
        )
    return Finding('opencv', value, problem)


def _ops() -> Finding:
    """Check that mmcv's ops are compiled for the device of the training."""
    import torch
    from mmcv.ops import get_compiling_cuda_version

    cuda = get_compiling_cuda_version()
    if cuda != 'not available':
        return Finding('mmcv.ops', f'compiled for CUDA {cuda}')
    if not torch.cuda.is_available():
        return Finding('mmcv.ops', 'compiled for the CPU')
    problem = (
        "There is a GPU, but mmcv's ops were compiled for the CPU only, and "
        'what needs them on the GPU stops: install the CUDA toolkit (nvcc) '
        f'{torch.version.cuda}, export FORCE_CUDA=1, then {_build_mmcv()}; or '
        'hide the GPU: export CUDA_VISIBLE_DEVICES= (nothing).'
    )
    return Finding('mmcv.ops', 'compiled for the CPU', problem)


def _missing_compiler() -> str:
    """What is missing to build mmcv, as the end of a sentence."""
    if shutil.which(os.environ.get('CXX', 'c++')) is None:
        return ', after installing a C++ compiler (apt install g++)'
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        return ", after installing Python's headers (apt install python3-dev)"
    return ''


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return _MISSING


def _import_error(name: str) -> str:
    """Last line of the error of importing a module, or ''."""
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken library raises anything
        lines = str(error).strip().splitlines() or ['no message']
        return f'{type(error).__name__}: {lines[-1]}'
    return ''
