# Copyright (c) mmdetr authors. All rights reserved.
"""Draws one image of the synthetic ``shapes`` dataset.

Coloured shapes of all sizes occlude each other on a mottled, noisy background
with strokes and blobs that belong to no class; some images have no object.

The same seed gives the same pixels everywhere: random numbers come from
numpy's frozen ``RandomState``, outlines are rounded before they are filled,
and the rest is correctly rounded arithmetic (no matrix products or array
trigonometry, whose last bit depends on the machine).
"""

import math
from dataclasses import dataclass

import numpy as np

SHAPE_CLASSES = (
    'circle',
    'ring',
    'square',
    'triangle',
    'cross',
    'star',
    'crescent',
)
"""Class names; the category id of a class is its position plus one."""

EMPTY_SHARE = 0.06
"""Share of the images without objects."""

MIN_VISIBLE_PIXELS = 12
"""Fewest visible pixels of an object."""

_MAX_OBJECTS = 6
_MAX_CLUTTER = 8
_EXTENT_RANGE = (0.08, 0.6)  # diameter over the image's longest side
_MAX_TURN = math.radians(25)  # things stand upright in most pictures
_MIN_VISIBLE_SHARE = 0.5  # of the whole shape, parts outside included
_OWN_COLOR_SHARE = 0.9  # of the objects have about their class's colour
_COLOR_SPREAD = 45  # in each channel around the class's colour
_OBJECT_CONTRAST = 110  # sum of absolute differences over R, G and B
_CLUTTER_CONTRAST = 30
_SHADING = 22  # largest change of a channel over an object
_CLASS_COLORS = np.array(
    [
        (220, 50, 50),
        (240, 200, 40),
        (60, 170, 70),
        (60, 100, 220),
        (170, 70, 200),
        (240, 130, 30),
        (40, 190, 200),
    ]
)
_ASPECT_RATIOS = (1.0, 1.0, 0.75, 4 / 3)
_SUBPIXELS = 4  # coverage is sampled on a grid of 4 x 4 points per pixel

Rng = np.random.RandomState
Contours = list[np.ndarray]
"""Closed polygons, each (num_points, 2) in the order (x, y); a point is
inside the shape when it lies in an odd number of them."""


@dataclass(frozen=True)
class Scene:
    """An image and its objects.

    Attributes:
        image: RGB pixels, uint8, shape (height, width, 3).
        labels: Index into :data:`SHAPE_CLASSES` of each object, back to
            front.
        masks: Visible pixels of each object, bool, shape (height, width).
    """

    image: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]


def draw_scene(size: int, seed: list[int]) -> Scene:
    """Draw an image whose longest side has ``size`` pixels."""
    rng = Rng(seed)
    height, width = _draw_image_size(rng, size)
    base_color = rng.randint(40, 216, size=3)
    canvas = _draw_background(rng, height, width, base_color)
    _paint_clutter(rng, canvas, base_color)
    labels, masks = _paint_objects(rng, canvas, base_color)
    return Scene(_develop(rng, canvas), labels, masks)


def _draw_image_size(rng: Rng, size: int) -> tuple[int, int]:
    """Height and width with the longest side ``size``."""
    ratio = _ASPECT_RATIOS[rng.randint(len(_ASPECT_RATIOS))]
    if ratio <= 1:
        return size, round(size * ratio)
    return round(size / ratio), size


def _draw_background(
    rng: Rng, height: int, width: int, color: np.ndarray
) -> np.ndarray:
    """Mottled canvas around a colour; float64 (height, width, 3)."""
    canvas = np.empty((height, width, 3))
    canvas[:] = color
    for cells, strength in ((2, 30), (6, 16), (24, 8)):
        noise = _smooth_noise(rng, height, width, cells)
        tint = strength // 2 + rng.randint(-strength, strength + 1, size=3)
        canvas += noise[..., None] * tint
    return canvas


def _smooth_noise(rng: Rng, height: int, width: int, cells: int) -> np.ndarray:
    """Bilinear noise in [-1, 1] from a random grid; (height, width)."""
    grid = rng.randint(-1000, 1001, size=(cells + 1, cells + 1)) / 1000
    y = np.arange(height) * cells / height
    x = np.arange(width) * cells / width
    row, column = y.astype(int), x.astype(int)
    rest = x - column
    lines = grid[:, column] * (1 - rest) + grid[:, column + 1] * rest
    rest = (y - row)[:, None]
    return lines[row] * (1 - rest) + lines[row + 1] * rest


def _paint_clutter(
    rng: Rng, canvas: np.ndarray, base_color: np.ndarray
) -> None:
    """Paint faint strokes and blobs that belong to no class, in place."""
    height, width = canvas.shape[:2]
    unit = max(height, width) / 160
    for _ in range(rng.randint(_MAX_CLUTTER + 1)):
        center = (rng.randint(width), rng.randint(height))
        if rng.randint(2):  # a stroke
            half_size = np.array([rng.randint(4, 30), rng.randint(1, 3) / 2])
            outline = _rectangle() * half_size
        else:  # a blob
            outline = _regular(7) * rng.randint(3, 13, size=(7, 1))
        angle = rng.random_sample() * math.pi
        contours = _place([outline], center, unit, angle)
        color = _draw_color(rng, base_color, _CLUTTER_CONTRAST)
        # Half transparent, so that clutter is fainter than objects.
        _paint(canvas, _coverage(contours, height, width) / 2, color)


def _paint_objects(
    rng: Rng, canvas: np.ndarray, base_color: np.ndarray
) -> tuple[list[int], list[np.ndarray]]:
    """Paint objects back to front, in place; return labels and masks.

    A shape is skipped if too little of it or of an earlier one would be
    visible, so everything in the picture is annotated.
    """
    labels: list[int] = []
    masks: list[np.ndarray] = []
    needed: list[float] = []
    if rng.random_sample() < EMPTY_SHARE:
        return labels, masks
    height, width = canvas.shape[:2]
    for _ in range(rng.randint(1, _MAX_OBJECTS + 1)):
        label = rng.randint(len(SHAPE_CLASSES))
        contours = _draw_shape(rng, SHAPE_CLASSES[label], height, width)
        color = _draw_object_color(rng, base_color, label)
        shading = _SHADING * _smooth_noise(rng, height, width, 2)
        coverage = _coverage(contours, height, width)
        mask = coverage >= 0.5
        visible = [*(other & ~mask for other in masks), mask]
        pixels = max(MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * _area(contours))
        in_sight = [other.sum() for other in visible]
        if np.all(np.greater_equal(in_sight, [*needed, pixels])):
            _paint(canvas, coverage, color + shading[..., None])
            labels.append(label)
            masks = visible
            needed.append(pixels)
    return labels, masks


def _draw_shape(rng: Rng, name: str, height: int, width: int) -> Contours:
    """An outline of random size, place, turn and stretch; pixels."""
    low, high = (math.log(extent) for extent in _EXTENT_RANGE)
    extent = math.exp(low + rng.random_sample() * (high - low))
    center = (rng.random_sample() * width, rng.random_sample() * height)
    angle = (2 * rng.random_sample() - 1) * _MAX_TURN
    stretch = 0.85 + 0.3 * rng.random_sample()
    outline = [c * (stretch, 1 / stretch) for c in _OUTLINES[name]]
    return _place(outline, center, extent * max(height, width) / 2, angle)


def _draw_color(rng: Rng, other: np.ndarray, contrast: int) -> np.ndarray:
    """A colour that differs from ``other`` by ``contrast`` or more; (3,)."""
    while True:
        color = rng.randint(256, size=3)
        if np.abs(color - other).sum() >= contrast:
            return color


def _draw_object_color(
    rng: Rng, base_color: np.ndarray, label: int
) -> np.ndarray:
    """Usually near the colour of the class, if the contrast permits; (3,).

    As in photographs, colour is a hint at the class, and shape decides.
    """
    if rng.random_sample() < _OWN_COLOR_SHARE:
        spread = rng.randint(-_COLOR_SPREAD, _COLOR_SPREAD + 1, size=3)
        color = np.clip(_CLASS_COLORS[label] + spread, 0, 255)
        if np.abs(color - base_color).sum() >= _OBJECT_CONTRAST:
            return color
    return _draw_color(rng, base_color, _OBJECT_CONTRAST)


def _develop(rng: Rng, canvas: np.ndarray) -> np.ndarray:
    """Add camera noise and round to uint8; (height, width, 3)."""
    strength = rng.randint(1, 13)
    # The sum of two uniform numbers is nearly normal, and exact.
    for _ in range(2):
        canvas = canvas + rng.randint(-strength, strength + 1, canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _paint(
    canvas: np.ndarray, coverage: np.ndarray, color: np.ndarray
) -> None:
    """Mix a colour, (3,) or one for each pixel, into the canvas in place."""
    canvas += coverage[..., None] * (color - canvas)


def _place(
    outline: Contours,
    center: tuple[float, float],
    scale: float,
    angle: float,
) -> Contours:
    """Scale and turn an outline about the origin and move it to a centre."""
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    placed = []
    for contour in outline:
        x, y = contour.T
        turned = (cos * x - sin * y, sin * x + cos * y)
        placed.append(np.stack(turned, axis=1) + center)
    return placed


def _area(contours: Contours) -> float:
    """Square pixels inside the first contour and outside the others."""
    areas = []
    for contour in contours:
        x, y = contour.T
        twice = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()
        areas.append(abs(twice) / 2)
    return areas[0] - sum(areas[1:])


def _coverage(contours: Contours, height: int, width: int) -> np.ndarray:
    """Share of each pixel that lies inside, in [0, 1]; (height, width)."""
    coverage = np.zeros((height, width))
    points = np.concatenate(contours)
    left, top = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)), (width, height))
    rows, columns = int(bottom) - top, int(right) - left
    if rows > 0 and columns > 0:  # else all of it is outside the image
        fine = _inside(
            [_round(c - (left, top)) * _SUBPIXELS for c in contours],
            rows * _SUBPIXELS,
            columns * _SUBPIXELS,
        )
        blocks = fine.reshape(rows, _SUBPIXELS, columns, _SUBPIXELS)
        count = blocks.sum(axis=(1, 3))
        coverage[top : top + rows, left : left + columns] = count
    return coverage / _SUBPIXELS**2


def _round(points: np.ndarray) -> np.ndarray:
    """Drop digits in which sines differ between machines."""
    return np.rint(points * 256) / 256


def _inside(contours: Contours, height: int, width: int) -> np.ndarray:
    """Mask of pixel centres that lie inside; uint8 (height, width).

    Counts for each centre the edges to its left; OpenCV's ``fillPoly`` differs
    between versions 4 and 5.
    """
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(c, -1, axis=0) for c in contours])
    center = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((start[:, 1] <= center) != (end[:, 1] <= center))
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    crossing = x + (row + 0.5 - y) * dx / dy
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    num_edges = np.zeros((height, width + 1), np.uint8)
    np.add.at(num_edges, (row, column), 1)
    return np.cumsum(num_edges[:, :width], axis=1, dtype=np.uint8) % 2


def _arc(radius: float, start: float, end: float, steps: int) -> np.ndarray:
    """Points of a circle from one angle up to another; (steps, 2)."""
    angles = [start + (end - start) * i / steps for i in range(steps)]
    return np.array([(math.cos(a), math.sin(a)) for a in angles]) * radius


def _regular(num_points: int, radius: float = 1.0) -> np.ndarray:
    """Corners of a regular polygon, the first on top; (num_points, 2)."""
    top = -math.pi / 2
    return _arc(radius, top, top + 2 * math.pi, num_points)


def _rectangle() -> np.ndarray:
    """Corners of the square of side two around the origin; (4, 2)."""
    return np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def _star(inner: float = 0.42) -> np.ndarray:
    """Outline of a five-pointed star; (10, 2)."""
    radii = np.array([1.0, inner] * 5)
    return _regular(10) * radii[:, None]


def _cross(arm: float = 0.34) -> np.ndarray:
    """Outline of a plus sign with arms ``2 * arm`` wide; (12, 2)."""
    corner = np.array([(1.0, -arm), (1.0, arm), (arm, arm)])
    quarter_turn = np.array([-1.0, 1.0])  # (x, y) becomes (-y, x)
    corners = [corner]
    for _ in range(3):
        corners.append(corners[-1][:, ::-1] * quarter_turn)
    return np.concatenate(corners)


def _crescent(offset: float = 0.45, radius: float = 0.78) -> np.ndarray:
    """Outline of a disc less a smaller disc to its right; (48, 2)."""
    tip_x = (1 + offset**2 - radius**2) / (2 * offset)
    tip_y = math.sqrt(1 - tip_x**2)
    outer = math.atan2(tip_y, tip_x)
    inner = math.atan2(tip_y, tip_x - offset)
    hollow = _arc(radius, 2 * math.pi - inner, inner, 24)
    hollow[:, 0] += offset
    return np.concatenate([_arc(1.0, outer, 2 * math.pi - outer, 24), hollow])


_OUTLINES: dict[str, Contours] = {
    'circle': [_regular(48)],
    'ring': [_regular(48), _regular(48, radius=0.55)],
    'square': [_rectangle() * 0.8],
    'triangle': [_regular(3)],
    'cross': [_cross()],
    'star': [_star()],
    'crescent': [_crescent()],
}
"""Outlines by class, within the unit circle or little more."""
