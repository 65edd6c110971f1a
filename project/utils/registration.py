# Copyright (c) mmdetr authors. All rights reserved.
"""Registers this package's classes when a registry is first asked."""

import importlib
from collections.abc import Iterable

from mmengine.registry import Registry


def add_location(registries: Iterable[Registry], module: str) -> None:
    """Have a module imported at the first look-up in some registries.

    mmengine's registries import the modules of their own package when they
    are first asked, which spares those who only read a config the seconds
    that it takes; this adds one to them. A registry that was asked before
    gets the module at once. Calling it again changes nothing.

    Args:
        registries (Iterable[Registry]): Registries of mmdet or mmengine.
        module (str): Full name of the module, whose import registers.
    """
    for registry in registries:
        locations = getattr(registry, '_locations', None)
        if locations is None or registry._imported:
            importlib.import_module(module)
        elif module not in locations:
            # A new list: registries without locations share their empty one.
            registry._locations = [*locations, module]
