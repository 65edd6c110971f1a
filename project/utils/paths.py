# Copyright (c) mmdetr authors. All rights reserved.
"""Paths of the configs and tools of this package."""

from pathlib import Path

from project.utils.errors import UserError, did_you_mean

SCOPE = 'mmdetr::'
"""What the name of a shipped config may begin with."""
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


def config_names() -> list[str]:
    """List the configs that train and test something.

    Returns:
        list[str]: Their paths below ``configs/``, without those of parts.
    """
    root = _root('configs')
    names = (path.relative_to(root) for path in root.rglob('*.py'))
    return sorted(str(name) for name in names if name.parts[0] != '_base_')


def find_config(name: str) -> Path:
    """Find a config by its name alone.

    Args:
        name (str): Such as ``h-detr_r50_8xb2-12e_coco``, also with its
            folder, its ending, or ``mmdetr::`` before it.

    Returns:
        Path: The file, absolute.

    Raises:
        UserError: If there is no such config; names those most alike.
    """
    wanted = name.removeprefix(SCOPE).removeprefix('configs/')
    wanted = wanted.removesuffix('.py')
    stems = {Path(x).stem: x for x in config_names()}
    if wanted in stems:
        return config_path(stems[wanted])
    if '/' in wanted:
        return config_path(f'{wanted}.py')
    hint = did_you_mean(wanted, stems, cutoff=0.4)
    raise UserError(f'There is no config {name!r}{hint}')


def _root(kind: str) -> Path:
    """The folder of configs or tools, in a wheel or in a checkout."""
    shipped = _PACKAGE / '.mim' / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def _find(kind: str, name: str) -> Path:
    root = _root(kind)
    path = root / name
    if path.is_file():
        return path
    there = sorted(str(file.relative_to(root)) for file in root.rglob('*.py'))
    hint = did_you_mean(name, there, cutoff=0.4)
    raise UserError(f'There is no {name!r} in {root}{hint}')
