# Copyright (c) mmdetr authors. All rights reserved.
"""Lists the keyword arguments that a class or function takes."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

# What receives the **kwargs of a class, if not its parent.
_PASSED_ON: dict[type, Callable] = {CheckpointHook: Runner.save_checkpoint}


def accepted_keys(target: Any) -> set[str] | None:
    """List the keyword arguments of a class or function.

    ``**kwargs`` that a class passes on to its parent are followed there.

    Returns:
        set[str] | None: Their names; None if it may take any.
    """
    if not inspect.isclass(target):
        names, rest = _parameters(target)
        return None if rest else names
    accepted: set[str] = set()
    for parent in target.__mro__:
        init = vars(parent).get('__init__')
        if init is None:
            continue
        if not inspect.isfunction(init):  # written in C
            return None if parent is not object else accepted
        names, rest = _parameters(init)
        accepted |= names
        if rest is None:
            return accepted
        if parent in _PASSED_ON:
            return accepted | _parameters(_PASSED_ON[parent])[0]
        if not _hands_on(init, rest):
            return None
    return None


def listed_keys(target: Any) -> set[str]:
    """List the keyword arguments that a class and its parents name.

    Returns:
        set[str]: Names to suggest; there may be more.
    """
    if not inspect.isclass(target):
        return _parameters(target)[0] if callable(target) else set()
    inits = (vars(parent).get('__init__') for parent in target.__mro__)
    names = [_parameters(i)[0] for i in inits if inspect.isfunction(i)]
    return set().union(*names)


def plain_types(target: Any) -> dict[str, type]:
    """Tell which keyword arguments of a class or function are plain values.

    Args:
        target (Callable): A class or function.

    Returns:
        dict[str, type]: Name to ``int``, ``float`` or ``bool``, as annotated.
    """
    inits = [target]
    if inspect.isclass(target):
        inits = [vars(p).get('__init__') for p in reversed(target.__mro__)]
    kinds = {
        parameter.name: parameter.annotation
        for init in inits
        if inspect.isfunction(init)
        for parameter in inspect.signature(init).parameters.values()
    }
    return {k: v for k, v in kinds.items() if v in (int, float, bool)}


def _parameters(function: Callable) -> tuple[set[str], str | None]:
    """The names of a function's parameters, and that of its ``**kwargs``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return set(), 'kwargs'
    by_name = {
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    return by_name - {'self'}, rest[0] if rest else None


def _hands_on(init: Callable, rest: str) -> bool:
    """Return whether ``**rest`` is only passed on to the parent."""
    try:
        source = inspect.getsource(inspect.unwrap(init))
    except (OSError, TypeError):
        return False
    body = source[source.index(f'**{rest}') + len(rest) + 2 :]
    code = re.sub(r'""".*?"""|#[^\n]*', '', body, flags=re.DOTALL)
    uses = re.findall(rf'(\*\*)?\b{rest}\b', code)
    handed = re.search(
        rf'super\([^)]*\)\s*\.__init__\((?:[^()]|\([^()]*\))*?\*\*{rest}\b',
        code,
    )
    return handed is not None and uses == ['**']
