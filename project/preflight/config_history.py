# Copyright (c) mmdetr authors. All rights reserved.
"""Values of a variable along a chain of inherited configs."""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config


def values_of_files(filename: str | None, name: str) -> list[Any]:
    """Follow a variable through a config and its bases.

    Returns:
        list: Its value in each file that sets it, bases first. Empty if the
        files cannot be read again, as for a config that came with a
        checkpoint.
    """
    if filename is None or not Path(filename).is_file():
        return []
    try:
        return _values(filename, name)
    except Exception:  # a config is code and may raise anything
        return []


def is_set_in(filename: str | None, name: str) -> bool:
    """Return whether a file sets a variable itself, not one of its bases."""
    return filename is not None and _assigned(filename, name) is not None


def _values(filename: str, name: str) -> list[Any]:
    values: list[Any] = []
    for base in Config._get_base_files(filename):
        path, _ = Config._get_cfg_path(base, filename)
        values += _values(path, name)
    node = _assigned(filename, name)
    if node is None:
        return values
    try:
        return [*values, ast.literal_eval(node)]
    except ValueError:  # an expression
        content, _, _ = Config._file2dict(filename)
        return [*values, content[name]]


def _assigned(filename: str, name: str) -> ast.expr | None:
    """Find the expression that a file assigns to a variable."""
    if not filename.endswith('.py'):
        content, _, _ = Config._file2dict(filename)
        return ast.Constant(content[name]) if name in content else None
    found = None
    tree = ast.parse(Path(filename).read_text(encoding='utf-8'))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name
            for target in statement.targets
        ):
            found = statement.value
    return found
