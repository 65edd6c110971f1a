# Copyright (c) mmdetr authors. All rights reserved.
"""Draws boxes with labels that do not overlap."""

from collections.abc import Sequence
from functools import cache
from itertools import product

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLORS = (
    '#e6194b', '#0082c8', '#3cb44b', '#f58231', '#911eb4', '#00a5a5',
    '#f032e6', '#b8860b', '#5a5aff', '#8b4513', '#708090', '#c71585',
)  # fmt: skip
"""Colours of the classes, one after the other."""

Extent = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels; y grows downwards."""

_LITTLE = 0.02  # of a label may be hidden
_PAD = 2  # pixels around the words of a label


def color_of(label: int) -> str:
    """The colour of a class, by its number."""
    return COLORS[label % len(COLORS)]


def draw_on_image(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    titles: Sequence[str],
) -> Image.Image:
    """Draw boxes on a copy of an image.

    Args:
        image: (h, w, 3), uint8, RGB.
        boxes: (x1, y1, x2, y2) in pixels, has shape (n, 4). Labels are placed
            in this order.
        labels: Class index of each box, which gives its colour.
        titles: Text of each label.

    Returns:
        PIL.Image: The picture.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    side = min(picture.size)
    width, font = max(1, round(side / 250)), _font(max(10, round(side / 35)))
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    for box, label in zip(boxes[::-1], labels[::-1], strict=True):
        draw.rectangle(_ordered(box), outline=color_of(label), width=width)
    frame: Extent = (0, 0, *picture.size)
    placed: list[Extent] = []
    for box, label, title in zip(boxes, labels, titles, strict=True):
        x1, y1, x2, y2 = draw.textbbox((0, 0), title, font=font)
        size = (x2 - x1 + 2 * _PAD, y2 - y1 + 2 * _PAD)
        extent = place_label(_ordered(box), size, frame, placed)
        placed.append(extent)
        draw.rectangle(extent, fill=color_of(label))
        origin = (extent[0] - x1 + _PAD, extent[1] - y1 + _PAD)
        draw.text(origin, title, fill='white', font=font)
    return picture


def place_label(
    box: Extent,
    size: tuple[float, float],
    frame: Extent,
    placed: Sequence[Extent],
) -> Extent:
    """Find a place at the edge of a box where a label covers no other.

    Args:
        box: The box.
        size: Width and height of the label.
        frame: Extent to stay within.
        placed: Extents of the labels placed already.

    Returns:
        Extent: The place above, below, inside or beside the box that covers
        the least.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    lefts = (x1, x2 - width)
    tops = ((y1 - height, y2), (y1, y2 - height), ((y1 + y2 - height) / 2,))
    best, lowest = box, float('inf')
    for left, top in (pair for row in tops for pair in product(lefts, row)):
        extent = (left, top, left + width, top + height)
        cost = width * height - _overlap(extent, frame)
        cost += sum(_overlap(extent, other) for other in placed)
        if cost < lowest:
            best, lowest = extent, cost
        if cost <= _LITTLE * width * height:
            break
    return best


def _overlap(one: Extent, other: Extent) -> float:
    """Area of the intersection of two extents."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _ordered(box: np.ndarray) -> Extent:
    """A box with ordered corners for Pillow, even if it has no area."""
    x1, y1, x2, y2 = box.tolist()
    return (x1, y1, max(x1, x2), max(y1, y2))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's font, which has most alphabets."""
    path = f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf'
    return ImageFont.truetype(path, size)
