# Copyright (c) mmdetr authors. All rights reserved.
"""Resolves a config of this package wherever it is read.

mmdet's tools, ``DetInferencer``, ``init_detector`` and a plain ``Runner`` all
take a ``mmengine.Config`` as it was read. ``data_root`` and ``classes`` have
to hold in it by then, or they would build another model than was trained and
read other data. This module is the one place of the package that reaches into
mmengine's ``Config``, and does so for configs of this package alone: those
with ``project`` among their ``custom_imports``, whatever runner they name, and
those with ``runner_type = 'DETRRunner'``. All others pass through untouched.

It also lets any config inherit a shipped one by ``_base_ = 'mmdetr::...'``,
which mmengine allows for packages in a table of its own only.
"""

import functools
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from project.preflight.variables import SETTERS, resolve_config
from project.utils.paths import SCOPE, find_config

_RUNNER = 'DETRRunner'
_MARK = '_resolves_variables'


def resolve_when_read() -> None:
    """Have configs of this package resolved when they are made or changed.

    ``Config.fromfile``, ``Config.fromstring`` and ``Config(...)`` give a
    config in which the variables hold, see :func:`resolve_config`; setting
    one of them later, by ``merge_from_dict`` as ``--cfg-options`` does or by
    assignment, carries it on at once. The first config that imports the
    package is made after its import, and is resolved, too. Calling this again
    changes nothing.
    """
    for name, change in (
        ('__init__', _init),
        ('merge_from_dict', _merge),
        ('__setattr__', _set),
        ('__setitem__', _set),
    ):
        original = getattr(Config, name)
        if not hasattr(original, _MARK):
            setattr(Config, name, _wrapped(original, change))
    if not hasattr(Config._get_cfg_path, _MARK):
        finder = _finding_shipped(Config._get_cfg_path)
        Config._get_cfg_path = staticmethod(finder)


def is_ours(content: Any) -> bool:
    """Tell whether a config leaves its variables to this package.

    Returns:
        bool: Whether it imports the package, or names its runner or one
        derived from it.
    """
    imports = (content.get('custom_imports') or {}).get('imports') or ()
    if isinstance(imports, str):
        imports = [imports]
    if any(str(name).partition('.')[0] == 'project' for name in imports):
        return True
    runner = content.get('runner_type')
    if isinstance(runner, str):
        name = runner.rpartition('.')[-1]
        if name == _RUNNER:
            return True
        # Not `get`, which would import all of mmengine for the plain one.
        runner = RUNNERS.module_dict.get(name)
    mro = getattr(runner, '__mro__', ())
    return any(parent.__name__ == _RUNNER for parent in mro)


def _finding_shipped(original: Callable) -> Callable:
    """Make a look-up of bases that also finds ``mmdetr::...``.

    It remembers where those of mmdet are: mmengine reads all metafiles of
    mmdet to find one.
    """

    @functools.cache
    def find_in_package(cfg_path: str) -> tuple[str, str | None]:
        return original(cfg_path, '')

    @functools.wraps(original)
    def find(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(SCOPE):
            # Types are mmdet's or registered with it: no scope of our own.
            return str(find_config(cfg_path)), None
        if '::' in cfg_path:
            return find_in_package(cfg_path)
        return original(cfg_path, filename)

    setattr(find, _MARK, True)
    return find


def _wrapped(original: Callable, change: Callable) -> Callable:
    """Make a method that looks like the original one and calls ``change``."""

    @functools.wraps(original)
    def method(self: Config, *args: Any, **kwargs: Any) -> Any:
        return change(self, original, *args, **kwargs)

    setattr(method, _MARK, True)
    return method


def _init(self: Config, original: Callable, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    if is_ours(self) and any(self.get(name) is not None for name in SETTERS):
        # The dict that was given may be somebody else's.
        content = resolve_config(self)._cfg_dict
        object.__setattr__(self, '_cfg_dict', content)


def _merge(
    self: Config,
    original: Callable,
    options: dict,
    *args: Any,
    **kwargs: Any,
) -> None:
    others = {k: v for k, v in options.items() if k not in SETTERS}
    if len(others) == len(options) or not is_ours({**self, **others}):
        return original(self, options, *args, **kwargs)
    for name, value in options.items():
        if name in SETTERS:
            setattr(self, name, value)
    # What is set at its own place has the last word.
    return original(self, others, *args, **kwargs)


def _set(self: Config, original: Callable, name: str, value: Any) -> None:
    if name in SETTERS and is_ours(self):
        SETTERS[name](self._cfg_dict, value)
    else:
        original(self, name, value)
