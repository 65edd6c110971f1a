# Copyright (c) mmdetr authors. All rights reserved.
"""Lazy registration of this package's classes."""

import importlib
from collections.abc import Iterable

from mmengine.registry import Registry


def add_location(registries: Iterable[Registry], module: str) -> None:
    """Import a module at the first look-up in some registries.

    mmengine's registries import their locations at the first look-up, so that
    reading a config takes no seconds; this adds one. For registries that have
    been used already, the module is imported at once. Idempotent.

    Args:
        registries (Iterable[Registry]): Registries of mmdet or mmengine.
        module (str): Full name of the module.
    """
    for registry in registries:
        locations = getattr(registry, '_locations', None)
        if locations is None or registry._imported:
            importlib.import_module(module)
        elif module not in locations:
            # A new list: registries without locations share their empty one.
            registry._locations = [*locations, module]
