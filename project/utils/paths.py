# Copyright (c) mmdetr authors. All rights reserved.
"""Paths of the configs and tools of this package."""

from pathlib import Path

from project.utils.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]


def config_path(name: str) -> Path:
    """Find a config by its path below ``configs/``.

    Works in a checkout and with an installed wheel, which includes them.

    Args:
        name (str): Such as ``h_detr/h-detr_r50_8xb2-12e_coco.py``.

    Raises:
        UserError: If there is no such config, with similar names.
    """
    return _find('configs', name)


def tool_path(name: str) -> Path:
    """Find a script by its path below ``tools/``, as :func:`config_path`.

    Args:
        name (str): Such as ``train.py`` or
            ``model_converters/official_to_mmdet.py``.

    Raises:
        UserError: If there is no such script, with similar names.
    """
    return _find('tools', name)


def _find(kind: str, name: str) -> Path:
    shipped = _PACKAGE / '.mim' / kind
    root = shipped if shipped.is_dir() else _PACKAGE.parent / kind
    path = root / name
    if path.is_file():
        return path
    there = sorted(str(file.relative_to(root)) for file in root.rglob('*.py'))
    hint = did_you_mean(name, there, cutoff=0.4)
    raise UserError(f'There is no {name!r} in {root}{hint}')
