# Copyright (c) mmdetr authors. All rights reserved.
"""Compares the detections of two runtimes, box for box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

Detected = Sequence[np.ndarray]
"""Boxes (bs, n, 4), scores (bs, n) and labels (bs, n)."""
_FAR = 1e6


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same detection.

    Attributes:
        box (float): Distance of each side, as a share of the image's longer
            side.
        score (float): Difference of the scores.
        others (float): Share of the detections that may differ: proposals
            whose scores tie but for rounding come in another order.
    """

    box: float = 1e-4
    score: float = 1e-3
    others: float = 0.02


HALF = Tolerance(box=1e-2, score=2e-2, others=0.1)
"""For half precision, whose rounding changes the order of proposals."""


@dataclass(frozen=True)
class Difference:
    """How much two runtimes differ.

    Attributes:
        box (float): Largest distance of a side in pixels.
        score (float): Largest difference of a score.
        missing (int): Detections that one of them alone has.
        total (int): Detections compared.
    """

    box: float = 0.0
    score: float = 0.0
    missing: int = 0
    total: int = 0

    def __or__(self, other: 'Difference') -> 'Difference':
        """Join with that of other images."""
        return Difference(
            max(self.box, other.box),
            max(self.score, other.score),
            self.missing + other.missing,
            self.total + other.total,
        )

    def exceeds(self, tolerance: Tolerance) -> bool:
        """Whether more detections differ than rounding explains."""
        return self.missing > tolerance.others * self.total

    def __str__(self) -> str:
        text = f'boxes {self.box:.2g} pixels, scores {self.score:.2g}'
        if self.missing:
            text += f'; {self.missing} of {self.total} have no counterpart'
        return text


def compare(
    expected: Detected,
    found: Detected,
    shape: tuple[int, int],
    tolerance: Tolerance,
) -> Difference:
    """Pair the detections of a batch and measure how far they are apart.

    Args:
        expected (Sequence[np.ndarray]): Boxes, scores and labels.
        found (Sequence[np.ndarray]): Those of another runtime.
        shape (tuple[int, int]): (h, w) of the images.
        tolerance (Tolerance): What counts as the same detection.

    Returns:
        Difference: The largest among the detections that both have.
    """
    whole = Difference()
    if any(a.shape != b.shape for a, b in zip(expected, found, strict=True)):
        total = expected[1].size
        return Difference(missing=total, total=total)
    for image in zip(*expected, *found, strict=True):
        whole |= _compare_image(image[:3], image[3:], shape, tolerance)
    return whole


def _compare_image(
    expected: Detected,
    found: Detected,
    shape: tuple[int, int],
    tolerance: Tolerance,
) -> Difference:
    """Compare the detections of one image."""
    boxes, scores, labels = expected
    other_boxes, other_scores, other_labels = found
    distance = np.abs(boxes[:, None] - other_boxes).max(-1)
    apart = np.abs(scores[:, None] - other_scores)
    is_same = labels[:, None] == other_labels
    is_same &= apart <= tolerance.score
    is_same &= distance <= tolerance.box * max(shape)
    cost = np.where(is_same, distance, _FAR)
    rows, columns = linear_sum_assignment(cost)
    hit = is_same[rows, columns]
    pairs = rows[hit], columns[hit]
    return Difference(
        box=float(distance[pairs].max(initial=0)),
        score=float(apart[pairs].max(initial=0)),
        missing=int((~hit).sum()),
        total=len(boxes),
    )
