# Copyright (c) mmdetr authors. All rights reserved.
"""The score threshold at which F1 is highest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps


@dataclass
class Boxes:
    """Boxes of one image.

    Attributes:
        bboxes: (x1, y1, x2, y2) in pixels of the image, shape (num, 4).
        labels: Class indices, shape (num,).
    """

    bboxes: np.ndarray
    labels: np.ndarray


@dataclass
class Detections(Boxes):
    """Detections in one image.

    Attributes:
        scores: Confidences, shape (num,).
    """

    scores: np.ndarray

    def masked(self, mask: np.ndarray) -> 'Detections':
        """Select detections by a boolean mask of shape (num,)."""
        return Detections(
            self.bboxes[mask], self.labels[mask], self.scores[mask]
        )


def best_threshold(
    images: Sequence[tuple[Detections, Boxes]], iou_thr: float = 0.5
) -> tuple[float, float]:
    """Find the score threshold with the highest F1 over all classes.

    A detection is a hit if it overlaps an object of its class that is not
    matched to a detection with a higher score.

    Args:
        images: Detections and ground truth of each image.
        iou_thr: Lowest IoU of a hit.

    Returns:
        The threshold, which is the lowest score kept, and F1 at it; 0.5 and 0
        if there is no hit.
    """
    scores, hits = [np.empty(0)], [np.empty(0)]
    for detections, truth in images:
        for label in np.unique(detections.labels):
            mine = detections.masked(detections.labels == label)
            there = truth.bboxes[truth.labels == label]
            scores.append(mine.scores)
            hits.append(_hits(mine, there, iou_thr))
    num_objects = sum(len(truth.labels) for _, truth in images)
    return threshold_of_hits(
        np.concatenate(scores), np.concatenate(hits), num_objects
    )


def threshold_of_hits(
    scores: np.ndarray, hits: np.ndarray, num_objects: int
) -> tuple[float, float]:
    """Find the score threshold with the highest F1 of matched detections.

    Args:
        scores: Of the detections, shape (num,).
        hits: Whether each is matched to an object, shape (num,).
        num_objects: Number of objects there are.

    Returns:
        As :func:`best_threshold`.
    """
    order = np.argsort(-scores, kind='stable')
    score, num_hits = scores[order], np.cumsum(hits[order])
    if not len(score) or not num_hits[-1]:
        return 0.5, 0.0
    f1 = 2 * num_hits / (np.arange(1, len(score) + 1) + num_objects)
    # Detections of equal score are kept or dropped together.
    is_last = np.append(score[1:] < score[:-1], True)
    best = int(np.argmax(np.where(is_last, f1, -1)))
    return float(score[best]), float(f1[best])


def _hits(
    boxes: Detections, objects: np.ndarray, iou_thr: float
) -> np.ndarray:
    """Match each box, in the order of scores, to an unmatched object."""
    hits = np.zeros(len(boxes.scores))
    overlaps = bbox_overlaps(boxes.bboxes, objects)
    for index in np.argsort(-boxes.scores, kind='stable'):
        if overlaps[index].max(initial=0) >= iou_thr:
            hits[index] = 1
            overlaps[:, overlaps[index].argmax()] = 0  # taken
    return hits
