# Copyright (c) mmdetr authors. All rights reserved.
"""Checks of a config, its model and its data before a run starts."""

import importlib
from typing import Any

__all__ = ['check_data', 'check_model', 'resolve_config']

_MODULES = dict(
    check_data='data', check_model='model', resolve_config='variables'
)


def __getattr__(name: str) -> Any:
    """Import a check when it is first used; it needs all of mmdet."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = importlib.import_module(f'{__name__}.{_MODULES[name]}')
    return getattr(module, name)
