# Copyright (c) mmdetr authors. All rights reserved.
"""Exclusion of functions from ``torch.compile``."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def not_compiled(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Decorator that excludes a function from compilation.

    Unlike ``torch.compiler.disable``, it does not import the compiler, which
    takes more than a second, until the function is called.

    Args:
        function (Callable): A function that synchronizes or calls NumPy.

    Returns:
        Callable: The function, not traced.
    """
    return torch._disable_dynamo(function)
