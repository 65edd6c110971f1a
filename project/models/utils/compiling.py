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


def constant_when_compiled(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Decorator of a function whose result is a constant of its arguments.

    ``torch.compile`` calls it while it traces and does not look into it. As
    :func:`not_compiled`, it does not import the compiler.

    Args:
        function (Callable): A function of Python constants, in tuples.

    Returns:
        Callable: The function.
    """
    # As torch.compiler.assume_constant_result.
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
