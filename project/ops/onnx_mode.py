# Copyright (c) mmdetr authors. All rights reserved.
"""A mode in which the custom ops stay whole, to become nodes of ONNX."""

from collections.abc import Iterator
from contextlib import contextmanager

_active = False


@contextmanager
def onnx_mode() -> Iterator[None]:
    """Trace deformable attention and RoIAlign as custom ops.

    What they are made of otherwise takes minutes to trace where sizes are
    symbolic.
    """
    global _active
    before, _active = _active, True
    try:
        yield
    finally:
        _active = before


def is_onnx_mode() -> bool:
    """Whether the custom ops are to stay whole."""
    return _active
