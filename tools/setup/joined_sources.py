# Copyright (c) mmdetr authors. All rights reserved.
"""Joins mmcv's C++ files to a few, which compile in a fraction of the time.

Of the ten seconds that each of its 80 files takes, nine go into torch's
headers. What is compiled is the same code.
"""

from __future__ import annotations  # so that an old Python can say so

from collections.abc import Iterable
from pathlib import Path

_OPS = Path('mmcv', 'ops', 'csrc', 'pytorch')
# Files of cpu/ that define the same names as another one, grouped so that
# those of a group do not.
_CLASHING = (('roi_align',), ('roi_align_rotated', 'rotated_feature_align'))
_MAX_PARTS = 4  # more of them cost more in headers than they save


def join_sources(source: Path, jobs: int) -> int:
    """Put few files in the place of many.

    Args:
        source (Path): Folder of mmcv's source. The files are renamed, so that
            its ``setup.py``, which looks for ``*.cpp``, finds only those that
            include them.
        jobs (int): Number of compilers that will run at a time.

    Returns:
        int: How many files are left to compile; 0, and nothing is changed, if
            the source is laid out in another way.
    """
    folder = source / _OPS
    dispatching = sorted(folder.glob('*.cpp'))
    clashing = [
        [folder / 'cpu' / f'{name}.cpp' for name in names]
        for names in _CLASHING
    ]
    apart = [file for files in clashing for file in files]
    if not dispatching or not all(file.is_file() for file in apart):
        return 0
    kernels = sorted(set(folder.glob('cpu/*.cpp')) - set(apart))
    parts = max(1, min(jobs - 1, _MAX_PARTS))
    # Compiled in this order: the longest first.
    groups = [dispatching[part::parts] for part in range(parts)]
    groups += [kernels, *reversed(clashing)]
    for index, files in enumerate(groups):
        _join(files, folder / f'joined_{index}.cpp')
    return len(groups)


def _join(files: Iterable[Path], joined: Path) -> None:
    lines = []
    for file in files:
        included = file.rename(file.with_suffix('.cpp.inc'))
        lines.append(f'#include "{included.relative_to(joined.parent)}"')
        # psamask.cpp defines them as macros.
        lines += ['#undef min', '#undef max']
    joined.write_text('\n'.join(lines) + '\n')
