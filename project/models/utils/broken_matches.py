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
    """Match predictions with NaN before all others.

    Then the losses are NaN too, and the check of the losses finds it. An
    exception within the step would leave other ranks waiting for this one.
    """
    token = _BROKEN_COME_FIRST.set(True)
    try:
        yield
    finally:
        _BROKEN_COME_FIRST.reset(token)


def matchable(cost: Tensor) -> Tensor:
    """Replace NaN in matching costs within :func:`broken_come_first`.

    Args:
        cost (Tensor): Matching costs.

    Returns:
        Tensor: The costs, with NaN and negative infinity replaced by a very
        low cost. Infinity stays, by which custom costs forbid pairs.
    """
    if not _BROKEN_COME_FIRST.get():
        return cost
    return cost.nan_to_num(_CHEAPEST, torch.inf, _CHEAPEST)
