# Copyright (c) mmdetr authors. All rights reserved.
"""What changes from one decoder layer to the next, for a report."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps

from .hotcoco_eval import HotCOCOeval
from .layer_records import Author, LayerRecord
from .rank_quality import RankQuality, known_mean, rank_correlation


@dataclass
class LayerFindings:
    """Of the decoder layers, over the images that were recorded.

    Attributes:
        num_images: Their number.
        precisions: AP, and AP at IoU 0.5 and 0.75, in [0, 1], by what
            detects.
        ranking: Quality of each layer's ranking.
        kept_boxes: Mean IoU of a query's boxes before and after each layer,
            of as many best queries as an image has objects; NaN for a first
            layer that starts from points.
        kept_ranks: Spearman's correlation of the queries' scores after each
            layer and after the one before, mean of the images; NaN for the
            first.
    """

    num_images: int
    precisions: dict[Author, tuple[float, float, float]]
    ranking: list[RankQuality]
    kept_boxes: list[float]
    kept_ranks: list[float]


def analyse_layers(
    evaluation: HotCOCOeval,
    records: Mapping[int, LayerRecord],
    categories: Sequence[int],
) -> LayerFindings | None:
    """Find out what each layer contributes.

    Args:
        evaluation: That of the test, whose settings apply.
        records: By the id of the image.
        categories: Category id of each label.

    Returns:
        LayerFindings | None: None without images that have objects.
    """
    records = dict(sorted(records.items()))
    objects = {
        image: _objects(evaluation.cocoGt.imgToAnns[image], categories)
        for image in records
    }
    if not any(len(labels) for _, labels in objects.values()):
        return None
    first = next(iter(records.values()))
    found = LayerFindings(len(records), {}, [], [], [])
    for author in first.detections:
        rows = {i: r.detections[author] for i, r in records.items()}
        found.precisions[author] = _precisions(evaluation, rows, categories)
    for layer in range(len(first.scores)):
        quality, boxes, ranks = RankQuality(), [], []
        for image, record in records.items():
            _add(quality, record, layer, *objects[image])
            boxes += _overlaps(record, layer, len(objects[image][1]))
            if layer:
                both = record.scores[layer - 1], record.scores[layer]
                ranks.append(rank_correlation(*both))
        found.ranking.append(quality)
        found.kept_boxes.append(known_mean(boxes))
        found.kept_ranks.append(known_mean(ranks))
    return found


def _add(
    quality: RankQuality,
    record: LayerRecord,
    layer: int,
    gt_boxes: np.ndarray,
    gt_labels: np.ndarray,
) -> None:
    """Add what a layer predicts in an image."""
    quality.add_ranked(
        record.scores[layer],
        record.labels[layer],
        record.boxes[layer],
        gt_boxes,
        gt_labels,
    )


def _overlaps(record: LayerRecord, layer: int, count: int) -> list[float]:
    """IoU of the boxes before and after a layer, of its best queries."""
    before = record.boxes[layer - 1] if layer else record.proposals
    best = np.argsort(-record.scores[layer], kind='stable')[:count]
    pairs = bbox_overlaps(before[best], record.boxes[layer][best])
    return np.diagonal(pairs).tolist()


def _objects(
    annotations: Sequence[dict], categories: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (x1, y1, x2, y2) and labels, without crowds."""
    kept = [
        a
        for a in annotations
        if a['category_id'] in categories and not a.get('iscrowd')
    ]
    boxes = np.array([a['bbox'] for a in kept], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [categories.index(a['category_id']) for a in kept]
    return boxes, np.array(labels, int)


def _precisions(
    evaluation: HotCOCOeval,
    rows: Mapping[int, np.ndarray],
    categories: Sequence[int],
) -> tuple[float, float, float]:
    """AP, AP at IoU 0.5 and at 0.75 of images by their rows."""
    table = np.concatenate(list(rows.values())).astype(np.float64)
    if not len(table):
        return 0.0, 0.0, 0.0
    table[:, 2:4] -= table[:, :2]
    images = np.repeat(
        list(rows), [len(of_image) for of_image in rows.values()]
    )
    classes = np.asarray(categories)[table[:, 5].astype(int)]
    layer = HotCOCOeval(
        evaluation.cocoGt, np.column_stack([images, table[:, :5], classes])
    )
    layer.params = copy(evaluation.params)
    layer.params.imgIds = list(rows)
    with contextlib.redirect_stdout(io.StringIO()):
        layer.evaluate()
        layer.accumulate()
        layer.summarize()
    return tuple(float(value) for value in layer.stats[:3])  # type: ignore[return-value]
