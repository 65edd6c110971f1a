# Copyright (c) mmdetr authors. All rights reserved.
"""Puts configs, tools and the compiled op into the wheel.

setup.cfg lists the rest.
"""

import functools
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools')
# What only a checkout can run.
LEFT_OUT = (
    '__pycache__',
    'setup',
    'demo.py',
    'benchmark*.py',
    '_benchmarking.py',
    '_variants.py',
    '_set_prediction.py',
    'reference',
)


class BuildWithConfigs(build_py):
    """Copies ``configs/`` and ``tools/`` to ``project/.mim`` in the wheel.

    That is where mmdet's wheel has its own and ``project.utils.paths`` looks
    for ours. An editable install reads those of the checkout.
    """

    def run(self) -> None:
        """Build as usual, then add the folders and the op."""
        super().run()
        library = find_op()
        if self.editable_mode:
            return
        if library is not None:
            folder = Path(self.build_lib) / 'project' / 'ops' / 'lib'
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder)
        target = Path(self.build_lib) / 'project' / '.mim'
        # An earlier build in the same folder may have left renamed files.
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            shutil.copytree(
                ROOT / name,
                target / name,
                ignore=shutil.ignore_patterns(*LEFT_OUT),
            )
        shutil.copy(ROOT / 'model-index.yml', target)


@functools.cache
def find_op() -> Path | None:
    """The C++ op, built if need be; None, with the reason, if it cannot be.

    pip builds in an environment of its own, without torch, unless it is given
    ``--no-build-isolation``. Without the op the package works all the same.
    """
    building = load_building()
    try:
        return building.ensure_library()
    except (building.BuildError, OSError) as error:
        print(f'mmdetr without its C++ op: {error}', file=sys.stderr)
        return None


def load_building() -> ModuleType:
    """Import the module that compiles, without the package around it."""
    path = ROOT / 'project' / 'ops' / 'building.py'
    spec = importlib.util.spec_from_file_location('mmdetr_building', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class WheelOfMachine(bdist_wheel):
    """Names the platform where the op is inside; any Python 3 loads it."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag: Python, ABI and platform."""
        return ('py3', 'none', super().get_tag()[2])


class DistributionWithOp(Distribution):
    """Belongs to a platform if the op can be built."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel has something compiled."""
        return find_op() is not None


setup(
    cmdclass={'build_py': BuildWithConfigs, 'bdist_wheel': WheelOfMachine},
    distclass=DistributionWithOp,
)
