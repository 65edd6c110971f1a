# Copyright (c) mmdetr authors. All rights reserved.
"""How well the order of the scores is the order of the boxes' quality."""

from dataclasses import dataclass, field

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps
from scipy.stats import spearmanr

_NAN = float('nan')


@dataclass
class RankQuality:
    """Quality of the ranks that one decoder layer gives, over many images.

    Queries are ranked by their highest class score. A query is a hit if its
    class is that of an object which its box overlaps by ``iou_thr``; of
    several hits of one object the first counts, the others are duplicates
    (COCO's rule). Images without objects do not count.

    Args:
        max_rank (int): Where the curves over the top k end. Defaults to 100.
        iou_thr (float): Overlap of a hit. Defaults to 0.5.
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
            gt_boxes (ndarray): Likewise, in the same unit, has shape
                (num_gts, 4).
            gt_labels (ndarray): Has shape (num_gts, ).
        """
        if not len(gt_boxes):
            return
        confidence = scores.max(1)
        order = np.argsort(-confidence, kind='stable')
        overlaps = bbox_overlaps(boxes[order], gt_boxes, eps=1e-12)
        quality = overlaps.max(1)
        close = quality >= self.iou_thr
        ranked = confidence[order]
        self._correlations.append(_correlation(ranked, quality))
        self._close_correlations.append(
            _correlation(ranked[close], quality[close])
        )
        candidates = overlaps >= self.iou_thr
        candidates &= scores[order].argmax(1)[:, None] == gt_labels
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
        """Count up to each rank; beyond the last query nothing happens."""
        counts = np.cumsum(happens[: self.max_rank])
        missing = self.max_rank - len(counts)
        return np.pad(counts, (0, missing), mode='edge')

    @property
    def num_images(self) -> int:
        """int: Images with objects so far."""
        return len(self._num_gts)

    @property
    def correlation(self) -> float:
        """float: Spearman's rank correlation of score and IoU, in [-1, 1].

        Of all queries, mean over images. The IoU of a box is that with the
        object which it overlaps most.
        """
        return _mean(self._correlations)

    @property
    def close_correlation(self) -> float:
        """float: The same among the queries that lie on an object.

        NaN if no image has three of them.
        """
        return _mean(self._close_correlations)

    @property
    def hit_correlation(self) -> float:
        """float: The same among the hits of all images together.

        Of each object its one detection: whether the better of two
        detections has the higher score, as AP at a high IoU asks.
        """
        return _correlation(
            np.concatenate(self._hit_scores), np.concatenate(self._hit_ious)
        )

    def precision(self) -> np.ndarray:
        """Share of hits among the k queries of the highest scores.

        Returns:
            ndarray: Mean over images for k from 1, has shape (max_rank, ).
        """
        ranks = np.arange(1, self.max_rank + 1)
        return np.mean(self._hits, axis=0) / ranks

    def best_precision(self) -> np.ndarray:
        """What :meth:`precision` would be if all objects came first."""
        ranks = np.arange(1, self.max_rank + 1)
        counts = np.array(self._num_gts)[:, None]
        return np.minimum(ranks, counts).mean(0) / ranks

    def duplicates(self) -> np.ndarray:
        """Duplicates for each object among the k highest scores.

        Returns:
            ndarray: Over all images for k from 1, has shape (max_rank, ).
        """
        return np.sum(self._duplicates, axis=0) / sum(self._num_gts)

    def at_object_count(self) -> tuple[float, float]:
        """Precision, and duplicates for each object, at k = objects.

        Each image at its own number of objects.

        Returns:
            tuple[float, float]: Mean precision over images, and duplicates
            for each object over all of them.
        """
        precision, duplicates = np.transpose(self._at_object_count)
        return (
            float(precision.mean()),
            float(duplicates.sum() / sum(self._num_gts)),
        )


def _claim(
    candidates: np.ndarray, overlaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let queries claim objects in the order of their rank.

    Args:
        candidates (ndarray): Whether a query would be a hit of an object,
            has shape (num_queries, num_gts).
        overlaps (ndarray): IoU, has the same shape.

    Returns:
        tuple[ndarray, ndarray]: IoU of a hit with its object, 0 of other
        queries, and whether a query comes too late for all its objects, each
        has shape (num_queries, ).
    """
    ious = np.zeros(len(candidates))
    duplicates = np.zeros(len(candidates), dtype=bool)
    free = np.ones(candidates.shape[1], dtype=bool)
    for rank, (possible, iou) in enumerate(
        zip(candidates, overlaps, strict=True)
    ):
        claimable = possible & free
        if claimable.any():
            claimed = np.where(claimable, iou, -1).argmax()
            ious[rank] = iou[claimed]
            free[claimed] = False
        elif possible.any():
            duplicates[rank] = True
    return ious, duplicates


def _correlation(scores: np.ndarray, quality: np.ndarray) -> float:
    """Spearman's rank correlation; NaN of too few or of equal values."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(quality) == 0:
        return _NAN
    return float(spearmanr(scores, quality).statistic)


def _mean(values: list[float]) -> float:
    """Mean of the values that there are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else _NAN
