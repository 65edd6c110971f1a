# Copyright (c) mmdetr authors. All rights reserved.
"""Parses the text of a config as data, without executing it.

The configs that mmengine writes to checkpoints and work dirs only assign plain
values.
"""

import ast
from typing import Any


def read_plain_config(text: Any) -> dict[str, Any]:
    """Parse the text of a config that only assigns plain values.

    Args:
        text (Any): Text of a config.

    Returns:
        dict[str, Any]: The assigned values by name.

    Raises:
        ValueError: If it is no text, or does anything else.
    """
    # What stands in double braces is replaced before mmengine runs the text.
    if not isinstance(text, str) or '{{' in text:
        raise ValueError('no plain config')
    content: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            content |= _assigned(statement)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
    return content


def is_plain_config(text: Any) -> bool:
    """Return whether the text of a config only assigns plain values.

    Args:
        text (Any): Text of a config.

    Returns:
        bool: Whether it is safe to execute, as ``Config.fromstring`` does.
    """
    try:
        read_plain_config(text)
    except ValueError:
        return False
    return True


def _assigned(node: ast.stmt) -> dict[str, Any]:
    """Parse a line that assigns a plain value."""
    if not isinstance(node, ast.Assign):
        raise ValueError(f'line {node.lineno} assigns nothing')
    names = [getattr(target, 'id', '_base_') for target in node.targets]
    if '_base_' in names:
        raise ValueError(f'line {node.lineno} needs other files')
    value = _value(node.value)
    return dict.fromkeys(names, value)


def _value(node: ast.expr | None) -> Any:
    """Evaluate an expression of constants and containers.

    ``**`` in a dict, whose key is None, is refused.
    """
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
            return -value  # type: ignore[operator]
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Set(elts=parts):
            return {_value(part) for part in parts}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_value(key): _value(value) for key, value in pairs}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            if all(part.arg for part in keywords):
                return {str(x.arg): _value(x.value) for x in keywords}
    raise ValueError('more than constants and containers')
