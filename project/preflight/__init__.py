# Copyright (c) mmdetr authors. All rights reserved.
"""What is looked at before a start: the config, its model and its data."""

from typing import Any

__all__ = ['check_data', 'check_model', 'resolve_config']


def __getattr__(name: str) -> Any:
    """Import a check when it is first used; they need all of mmdet."""
    if name == 'check_data':
        from .data import check_data as found
    elif name == 'check_model':
        from .model import check_model as found
    elif name == 'resolve_config':
        from .variables import resolve_config as found
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return found
