# Copyright (c) mmdetr authors. All rights reserved.
"""Words for messages."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun, by default with an s from two on."""
    return f'{count:,} {noun if count == 1 else plural or f"{noun}s"}'
