# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_BROKEN_COME_FIRST = ContextVar('broken_come_first', default=False)
_CHEAPEST = -1e6


@contextmanager
def broken_come_first() -> Iterator[None]:
    """Match predictions that are no numbers before all others.

    Their losses are then no numbers either, and whoever looks at the losses
    learns of them. An exception in the midst of a step would leave other
    processes waiting for this one.
    """
    token = _BROKEN_COME_FIRST.set(True)
    try:
        yield
    finally:
        _BROKEN_COME_FIRST.reset(token)


def matchable(cost: Tensor) -> Tensor:
    """Let costs be solved where :func:`broken_come_first` holds.

    Args:
        cost (Tensor): Costs of pairs that may be matched.

    Returns:
        Tensor: The same costs; NaN and negative infinity are the lowest
        there. Infinity stays: a cost of the user's own forbids pairs by it.
    """
    if not _BROKEN_COME_FIRST.get():
        return cost
    return cost.nan_to_num(_CHEAPEST, torch.inf, _CHEAPEST)
