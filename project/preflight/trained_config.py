# Copyright (c) mmdetr authors. All rights reserved.
"""Finds the config that a checkpoint was trained with, as data.

It is never executed, and only builds what is registered already.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmdet.registry
import mmengine.registry
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

from project.checkpoints.plain_config import read_plain_config
from project.checkpoints.reading import read_checkpoint
from project.preflight.config_files import read_config_file
from project.preflight.config_tree import named_dicts
from project.preflight.misspellings import names_of
from project.utils.errors import UserError, did_you_mean, some_of
from project.utils.paths import config_path

_GIVE_ONE = (
    'give the config that it was trained with (--config CONFIG, in Python '
    'config=...)'
)
# What a detector is built from.
_PARTS = ('model', 'test_dataloader')
_LOADED = ('mmengine', 'mmcv', 'mmdet', 'project')
_PACKAGES = {*_LOADED, *MODULE2PACKAGE}
# Operators of mmcv that detectors name, without a registry.
_OPERATORS = {'nms', 'soft_nms', 'RoIAlign', 'RoIPool'}


def trained_config(checkpoint: str) -> Config:
    """Find the config of a checkpoint.

    It is in the checkpoint if mmengine saved it there, or the only config
    next to it (in the work dir), or the shipped one named by the converter.

    Args:
        checkpoint (str): A file, or a URL that mmengine can load.

    Returns:
        Config: The config.

    Raises:
        UserError: If there is none, or several are next to it, or it builds
            something that is not registered.
    """
    meta = read_meta(checkpoint)
    content = _plain(meta.get('cfg'))
    if content is None:
        content = _beside(checkpoint)
    if content is not None:
        _check_types(content, checkpoint)
        return Config(content)
    shipped = _named_by_converter(meta)
    if shipped is None:
        raise UserError(
            f'{checkpoint} holds no config, and none lies beside it; '
            f'{_GIVE_ONE}.'
        )
    return read_config_file(shipped)


def read_meta(checkpoint: str) -> Mapping[str, Any]:
    """Read the metadata of a checkpoint.

    Args:
        checkpoint (str): A file, or a URL that mmengine can load.

    Returns:
        Mapping[str, Any]: Its ``meta``; empty if it has none.
    """
    meta = read_checkpoint(checkpoint).get('meta')
    return meta if isinstance(meta, Mapping) else {}


def _plain(text: Any) -> dict[str, Any] | None:
    """Parse the text of a config with a model; None if it is none."""
    try:
        content = read_plain_config(text)
    except ValueError:
        return None
    return content if isinstance(content.get('model'), dict) else None


def _beside(checkpoint: str) -> dict[str, Any] | None:
    """Read the config that a training wrote to its work dir."""
    if '://' in checkpoint:
        return None
    found = {}
    for path in sorted(Path(checkpoint).parent.glob('*.py')):
        content = _plain(path.read_text(encoding='utf-8', errors='replace'))
        if content is not None:
            found[str(path)] = content
    if len(found) > 1:
        raise UserError(
            f'{checkpoint} holds no config, and several lie beside it '
            f'({some_of(found)}); {_GIVE_ONE}.'
        )
    return next(iter(found.values()), None)


def _named_by_converter(meta: Mapping[str, Any]) -> Path | None:
    """The first shipped config that fits, according to the converter."""
    names = meta.get('configs')
    for name in names if isinstance(names, list) else []:
        below = Path(str(name).removeprefix('configs/'))
        if not below.is_absolute() and '..' not in below.parts:
            try:
                return config_path(str(below))
            except UserError:  # of another version of this package
                continue
    return None


def _check_types(content: Mapping[str, Any], checkpoint: str) -> None:
    """Raise unless everything that would be built is registered.

    mmengine also accepts ``'os.system'`` as a type, and imports modules.
    """
    names = _registered_names()
    for part in _PARTS:
        for name, node in named_dicts(content.get(part), part):
            kind, scope = node.get('type'), node.get('_scope_', 'mmdet')
            if kind is None or (_is_safe(kind, names) and scope in _PACKAGES):
                continue
            raise UserError(
                f'The config of {checkpoint} has {name}.type={kind!r}, which '
                'is not registered'
                f'{did_you_mean(str(kind), names).rstrip(".")}; import the '
                f'module that registers it first, or {_GIVE_ONE}.'
            )


def _is_safe(kind: Any, names: set[str]) -> bool:
    """Return whether a type is registered, by its name or full path."""
    if not isinstance(kind, str):
        return False
    package, _, rest = kind.partition('.')
    if not rest:
        return kind in names or kind in _OPERATORS
    return package in _PACKAGES and (
        rest.rpartition('.')[2] in names
        # Of a package that registers its parts when it is imported.
        or (package not in _LOADED and '.' not in rest)
    )


def _registered_names() -> set[str]:
    """List all names in mmdet's and mmengine's registries."""
    return set().union(
        *(
            names_of(registry)
            for module in (mmengine.registry, mmdet.registry)
            for registry in vars(module).values()
            if isinstance(registry, Registry)
        )
    )
