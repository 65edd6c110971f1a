# Copyright (c) mmdetr authors. All rights reserved.
"""What ``torch.compile`` leaves alone."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def not_compiled(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Call a function as it is in a compiled model, as a decorator.

    As ``torch.compiler.disable``, but that imports the compiler, which takes
    more than a second, when the function is defined; this when it is called,
    and torch's optimizers have done so by then.

    Args:
        function (Callable): Waits for the host, or calls NumPy.

    Returns:
        Callable: The same, not traced.
    """
    return torch._disable_dynamo(function)
