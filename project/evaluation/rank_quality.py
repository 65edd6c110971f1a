# Copyright (c) mmdetr authors. All rights reserved.
"""Measures how well scores rank boxes by their quality."""

from dataclasses import dataclass, field

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps
from scipy.stats import spearmanr

_NAN = float('nan')


@dataclass
class RankQuality:
    """Quality of the ranking of one decoder layer, over many images.

    Queries are ranked by their highest class score. A query is a hit if its
    box overlaps an object of its class with an IoU of at least ``iou_thr``;
    further hits of the same object are duplicates (COCO's rule). Images
    without objects are ignored.

    Args:
        max_rank (int): Largest k of the curves over the top k. Defaults to
            100.
        iou_thr (float): Lowest IoU of a hit. Defaults to 0.5.
    """

    max_rank: int = 100
    iou_thr: float = 0.5
    _correlations: list[float] = field(default_factory=list)
    _close_correlations: list[float] = field(default_factory=list)
    _hits: list[np.ndarray] = field(default_factory=list)
    _duplicates: list[np.ndarray] = field(default_factory=list)
    _num_gts: list[int] = field(default_factory=list)
    _at_object_count: list[tuple[float, int]] = field(default_factory=list)
    _hit_scores: list[np.ndarray] = field(default_factory=list)
    _hit_ious: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        scores: np.ndarray,
        boxes: np.ndarray,
        gt_boxes: np.ndarray,
        gt_labels: np.ndarray,
    ) -> None:
        """Add one image.

        Args:
            scores (ndarray): Class probabilities, has shape
                (num_queries, num_classes).
            boxes (ndarray): (x1, y1, x2, y2), has shape (num_queries, 4).
            gt_boxes (ndarray): Boxes in the same format and unit, has shape
                (num_gts, 4).
            gt_labels (ndarray): Has shape (num_gts, ).
        """
        self.add_ranked(
            scores.max(1), scores.argmax(1), boxes, gt_boxes, gt_labels
        )

    def add_ranked(
        self,
        confidence: np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray,
        gt_boxes: np.ndarray,
        gt_labels: np.ndarray,
    ) -> None:
        """Add one image, of whose scores only the highest are known.

        Args:
            confidence (ndarray): Highest probability of each query, has shape
                (num_queries, ).
            labels (ndarray): Its class, has the same shape.
            boxes (ndarray): As in :meth:`add`.
            gt_boxes (ndarray): As in :meth:`add`.
            gt_labels (ndarray): As in :meth:`add`.
        """
        if not len(gt_boxes):
            return
        order = np.argsort(-confidence, kind='stable')
        overlaps = bbox_overlaps(boxes[order], gt_boxes, eps=1e-12)
        quality = overlaps.max(1)
        close = quality >= self.iou_thr
        ranked = confidence[order]
        self._correlations.append(rank_correlation(ranked, quality))
        self._close_correlations.append(
            rank_correlation(ranked[close], quality[close])
        )
        candidates = overlaps >= self.iou_thr
        candidates &= labels[order][:, None] == gt_labels
        ious, duplicates = _claim(candidates, overlaps)
        hits = ious > 0
        self._hit_scores.append(ranked[hits])
        self._hit_ious.append(ious[hits])
        self._hits.append(self._to_curve(hits))
        self._duplicates.append(self._to_curve(duplicates))
        self._num_gts.append(len(gt_boxes))
        rank = min(len(gt_boxes), len(boxes))
        self._at_object_count.append(
            (hits[:rank].sum() / rank, duplicates[:rank].sum())
        )

    def _to_curve(self, happens: np.ndarray) -> np.ndarray:
        """Cumulative counts, constant beyond the last query."""
        counts = np.cumsum(happens[: self.max_rank])
        missing = self.max_rank - len(counts)
        return np.pad(counts, (0, missing), mode='edge')

    @property
    def num_images(self) -> int:
        """int: Number of images with objects."""
        return len(self._num_gts)

    @property
    def correlation(self) -> float:
        """float: Spearman's rank correlation of score and IoU, in [-1, 1].

        Mean over images of the correlation over all queries, each with the
        largest IoU of its box with any object.
        """
        return known_mean(self._correlations)

    @property
    def close_correlation(self) -> float:
        """float: The same over queries with an IoU of at least ``iou_thr``.

        NaN if no image has three of them.
        """
        return known_mean(self._close_correlations)

    @property
    def hit_correlation(self) -> float:
        """float: The same over the hits of all images together.

        That is, whether the better of two detections has the higher score, as
        required for AP at a high IoU.
        """
        return rank_correlation(
            np.concatenate(self._hit_scores), np.concatenate(self._hit_ious)
        )

    def precision(self) -> np.ndarray:
        """Precision of the top k queries.

        Returns:
            ndarray: Mean over images for k from 1, has shape (max_rank, ).
        """
        ranks = np.arange(1, self.max_rank + 1)
        return np.mean(self._hits, axis=0) / ranks

    def best_precision(self) -> np.ndarray:
        """:meth:`precision` of a perfect ranking."""
        ranks = np.arange(1, self.max_rank + 1)
        counts = np.array(self._num_gts)[:, None]
        return np.minimum(ranks, counts).mean(0) / ranks

    def duplicates(self) -> np.ndarray:
        """Duplicates per object among the top k queries.

        Returns:
            ndarray: Over all images for k from 1, has shape (max_rank, ).
        """
        return np.sum(self._duplicates, axis=0) / sum(self._num_gts)

    def at_object_count(self) -> tuple[float, float]:
        """Precision and duplicates at k = number of objects of each image.

        Returns:
            tuple[float, float]: Mean precision over images, and duplicates
            per object over all images.
        """
        precision, duplicates = np.transpose(self._at_object_count)
        return (
            float(precision.mean()),
            float(duplicates.sum() / sum(self._num_gts)),
        )


def _claim(
    candidates: np.ndarray, overlaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match queries to objects in the order of their rank.

    ``candidates``, the possible hits, and the IoUs ``overlaps`` have shape
    (num_queries, num_gts).

    Returns:
        tuple[ndarray, ndarray]: IoU of each hit with its object, 0 for other
        queries, and whether a query is a duplicate, each has shape
        (num_queries, ).
    """
    ious = np.zeros(len(candidates))
    duplicates = np.zeros(len(candidates), dtype=bool)
    free = np.ones(candidates.shape[1], dtype=bool)
    for rank in np.flatnonzero(candidates.any(1)):
        claimable = candidates[rank] & free
        if claimable.any():
            claimed = np.where(claimable, overlaps[rank], -1).argmax()
            ious[rank] = overlaps[rank, claimed]
            free[claimed] = False
        else:
            duplicates[rank] = True
    return ious, duplicates


def rank_correlation(scores: np.ndarray, quality: np.ndarray) -> float:
    """Spearman's rank correlation; NaN for too few or equal values."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(quality) == 0:
        return _NAN
    return float(spearmanr(scores, quality).statistic)


def known_mean(values: list[float]) -> float:
    """Mean of the values that are not NaN."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else _NAN
