# Copyright (c) mmdetr authors. All rights reserved.
"""Finds the shipped config of a method and a backbone."""

import re
from pathlib import Path

from project.utils.errors import UserError, did_you_mean
from project.utils.paths import config_names, config_path

_SCHEDULE = re.compile(r'_(\d+)xb(\d+)-(\d+)([ek])_')


def find_model(name: str) -> Path:
    """Find a config by its name, or by method and backbone.

    Args:
        name: Method and backbone, such as ``rank-detr_r50``, for their plain
            config with 12 epochs or the one nearest to that; the full name
            of a config; or its path.

    Raises:
        UserError: If there is none, with similar names, or it needs masks.
    """
    if name.endswith('.py') and Path(name).is_file():
        return Path(name).resolve()
    stems = {path.stem: path for path in _configs()}
    stem = name.removesuffix('.py')
    fitting = [s for s in stems if s == stem or s.startswith(f'{stem}_')]
    if not fitting:
        short = [_SCHEDULE.split(s)[0] for s in stems]
        hint = did_you_mean(stem, [*dict.fromkeys(short), *stems], 0.5)
        if hint == '.':
            hint = f'; there are {", ".join(sorted(_methods(stems)))}.'
        raise UserError(f'There is no model {name!r}{hint}')
    found = min(fitting, key=lambda s: (s != stem, *_distance(s)))
    if '_lsj_' in found:
        raise UserError(
            f'{found} trains with masks, which a fine-tuning from a folder '
            'does not read; take a config without lsj.'
        )
    return stems[found]


def _configs() -> list[Path]:
    """All configs of a method trained on photographs."""
    names = (name for name in config_names() if _SCHEDULE.search(name))
    return [
        config_path(name)
        for name in names
        if not name.startswith(('custom/', 'demo/'))
    ]


def _methods(stems: dict[str, Path]) -> set[str]:
    """Method and backbone of each config."""
    return {'_'.join(stem.split('_')[:2]) for stem in stems}


def _distance(stem: str) -> tuple:
    """How far a config is from the plain one with 12 epochs."""
    before, _, per_gpu, length, unit, after = _SCHEDULE.split(stem + '_')
    return (
        '_lsj' in before,
        len(before.split('_')),
        '_r50' not in before,
        after != 'coco_',
        (length, unit) != ('12', 'e'),
        unit,
        int(length),
        -int(per_gpu),
        stem,
    )
