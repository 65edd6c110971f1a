# Copyright (c) mmdetr authors. All rights reserved.
"""Puts configs and tools into the wheel, beside what setup.cfg lists."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools')
# What only a checkout can run.
LEFT_OUT = (
    '__pycache__',
    'setup',
    'demo.py',
    'benchmark_*.py',
    '_benchmarking.py',
    '_set_prediction.py',
    'reference',
)


class BuildWithConfigs(build_py):
    """Copies ``configs/`` and ``tools/`` to ``project/.mim`` in the wheel.

    That is where mmdet's wheel has its own and ``project.utils.paths`` looks
    for ours. An editable install reads those of the checkout.
    """

    def run(self) -> None:
        """Build as usual, then add the folders."""
        super().run()
        if self.editable_mode:
            return
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


setup(cmdclass={'build_py': BuildWithConfigs})
