# Copyright (c) mmdetr authors. All rights reserved.
"""What hotcoco tells about detections beyond AP, for a report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from pycocotools.coco import COCO

from project.utils.coco_metrics import AP_ITEMS
from project.utils.errors import UserError

from .f1 import threshold_of_hits
from .fast_coco_metric import FastCocoMetric, class_means
from .hotcoco_eval import HotCOCOeval, has_hotcoco
from .layer_records import LayerRecord, LayerRecorder
from .layer_report import LayerFindings, analyse_layers

IOU_THR = 0.5
"""Lowest IoU of a hit, except in AP."""
CROWDING = ((1, 1), (2, 3), (4, 7), (8, 15), (16, None))
"""Fewest and most objects of the images that are evaluated together."""
ERRORS = {
    'Cls': 'wrong class',
    'Loc': 'imprecise box',
    'Both': 'wrong class and imprecise box',
    'Dupe': 'duplicate',
    'Bkg': 'background',
    'Miss': 'missed object',
}
"""TIDE's kinds of errors, by hotcoco's names."""


@dataclass
class Evaluated:
    """What the metric of a test was computed from.

    Attributes:
        values: The metrics, by the metric's own names.
        evaluation: The evaluation of boxes.
        detections: As in :class:`HotCOCOeval`.
        truth: The annotations.
        records: What was recorded of the decoder layers, by image id.
        categories: Category id of each label of the records.
    """

    values: dict[str, float]
    evaluation: HotCOCOeval
    detections: np.ndarray
    truth: COCO
    records: dict[int, LayerRecord] = field(default_factory=dict)
    categories: list[int] = field(default_factory=list)


@METRICS.register_module()
class ReportCocoMetric(FastCocoMetric):
    """``FastCocoMetric`` that keeps what it was computed from.

    Args:
        *args, **kwargs: As in ``CocoMetric``.

    Attributes:
        evaluated (Evaluated | None): Of the last test; None in processes
            other than the first, and without any detection.
        recorder (LayerRecorder | None): What records the decoder layers.

    Raises:
        UserError: If hotcoco cannot evaluate the annotations.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_hotcoco()
        self.evaluated: Evaluated | None = None
        self.recorder: LayerRecorder | None = None
        if not self._is_fast([]) or 'bbox' not in self.metrics:
            raise UserError(
                'A report needs a test_evaluator with metric "bbox", '
                'without format_only, and with an ann_file whose ids are '
                f'positive integers; the metrics are {self.metrics}'
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, and what was recorded of it."""
        super().process(data_batch, data_samples)
        if self.recorder is None:
            return
        for _, found in self.results[-len(data_samples) :]:
            found['layers'] = self.recorder.records.pop(found['img_id'], None)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of all images, as ``FastCocoMetric``."""
        self.evaluated = None
        values = super().compute_metrics(results)
        if self.evaluated is not None:
            self.evaluated.values = dict(values)
            self.evaluated.records = {
                found['img_id']: found['layers']
                for _, found in results
                if found.get('layers') is not None
            }
            self.evaluated.categories = self._coco_api.get_cat_ids(
                cat_names=self.dataset_meta['classes']
            )
        return values

    def _evaluate(self, metric: str, detections: np.ndarray) -> HotCOCOeval:
        evaluation = super()._evaluate(metric, detections)
        if metric == 'bbox':
            self.evaluated = Evaluated(
                {}, evaluation, detections, self._coco_api
            )
        return evaluation


def check_hotcoco() -> None:
    """Raise UserError unless hotcoco is installed."""
    if not has_hotcoco():
        raise UserError(
            'A report is computed by hotcoco, which is not installed; run '
            "pip install 'hotcoco>=1.3,<2' jinja2"
        )


@dataclass
class ClassFindings:
    """Of one class.

    Attributes:
        name: Name of the class.
        num_objects: Without crowds.
        precisions: Values of ``AP_ITEMS``, NaN where there is no object.
        threshold: Score at which F1 is highest.
        f1: F1 at it, in [0, 1].
        calibration_error: Expected calibration error, NaN if unknown.
    """

    name: str
    num_objects: int
    precisions: list[float]
    threshold: float
    f1: float
    calibration_error: float


@dataclass
class Findings:
    """Of all detections of a test; APs and shares are in [0, 1].

    Attributes:
        metrics: Rounded values of ``AP_ITEMS``, as the metric gave them.
        classes: By category id.
        recalls: x-axis of the curves, shape (101,).
        curves: Precision at each recall, by what they are of; mean of all
            classes.
        threshold: Score at which F1 over all classes is highest.
        f1: F1 at it.
        confusion: Objects by true and detected class among detections above
            ``threshold``, shape (K + 1, K + 1); the last is the background.
        calibration: hotcoco's ``calibration``.
        crowding: Number of images and AP, by the number of objects.
        errors: Count and cost in AP at IoU 0.5, by the kind of error.
        ranked_images: Ids of images with objects, the worst first.
        image_precisions: AP at IoU 0.5 of each of them.
        layers: Of the decoder layers, if they were recorded.
    """

    metrics: dict[str, float]
    classes: list[ClassFindings]
    recalls: np.ndarray
    curves: dict[str, np.ndarray]
    threshold: float
    f1: float
    confusion: np.ndarray
    calibration: dict
    crowding: dict[str, tuple[int, float]]
    errors: dict[str, tuple[int, float]]
    ranked_images: list[int] = field(default_factory=list)
    image_precisions: dict[int, float] = field(default_factory=dict)
    layers: LayerFindings | None = None


def analyse(evaluated: Evaluated) -> Findings:
    """Find out what the detections of a test get right and wrong."""
    engine = evaluated.evaluation.engine
    engine.summary_lines()  # without which there is no report
    objects = _objects(evaluated)
    num_of_image = Counter(a['image_id'] for a in objects)
    diagnosis = engine.image_diagnostics(iou_thr=IOU_THR)
    scores, hits, categories = _matched(evaluated, diagnosis['dt_status'])
    threshold, f1 = threshold_of_hits(scores, hits, len(objects))
    calibration = engine.calibration(iou_threshold=IOU_THR)
    matched = (scores, hits, categories)
    classes = _of_classes(evaluated, objects, matched, calibration)
    reported = engine.report()['curves']
    tide = engine.tide_errors(pos_thr=IOU_THR)
    precisions = {
        i: float(found['ap'])
        for i, found in diagnosis['img_summary'].items()
        if num_of_image[i]
    }
    return Findings(
        metrics={
            name: evaluated.values.get(f'bbox_{name}', float('nan'))
            for name in AP_ITEMS
        },
        classes=classes,
        recalls=np.asarray(reported['rec_thrs']),
        curves=_curves(reported),
        threshold=threshold,
        f1=f1,
        confusion=_confusion(evaluated, threshold),
        calibration=calibration,
        crowding=_by_crowding(evaluated, num_of_image),
        errors={
            kind: (tide['counts'][kind], tide['delta_ap'][kind])
            for kind in ERRORS
        },
        ranked_images=sorted(
            precisions, key=lambda i: (precisions[i], -num_of_image[i], i)
        ),
        image_precisions=precisions,
        layers=analyse_layers(
            evaluated.evaluation, evaluated.records, evaluated.categories
        ),
    )


def _curves(reported: dict[str, list]) -> dict[str, np.ndarray]:
    """Precisions at each recall, for three IoUs."""
    return {
        f'IoU {iou}': np.asarray(reported[f'pr@{iou}'])
        for iou in ('0.50', '0.75', '0.90')
        if f'pr@{iou}' in reported
    }


def _objects(evaluated: Evaluated) -> list[dict]:
    """Annotations that are evaluated, without crowds."""
    params = evaluated.evaluation.params
    images, categories = set(params.imgIds), set(params.catIds)
    return [
        annotation
        for annotation in evaluated.truth.dataset.get('annotations', ())
        if annotation['image_id'] in images
        and annotation['category_id'] in categories
        and not annotation.get('iscrowd')
    ]


def _matched(
    evaluated: Evaluated, status: dict[int, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, hits and category ids of the detections that count.

    hotcoco numbers the detections from 1, in their order.
    """
    states = np.array(
        [status.get(i, '') for i in range(1, len(evaluated.detections) + 1)]
    )
    counted = np.isin(states, ('tp', 'fp'))
    rows = evaluated.detections[counted]
    return rows[:, 5], states[counted] == 'tp', rows[:, 6].astype(int)


def _of_classes(
    evaluated: Evaluated,
    objects: Sequence[dict],
    matched: tuple[np.ndarray, np.ndarray, np.ndarray],
    calibration: dict,
) -> list[ClassFindings]:
    scores, hits, categories = matched
    counts = Counter(a['category_id'] for a in objects)
    precisions = evaluated.evaluation.eval['precision']
    found = []
    for index, category in enumerate(evaluated.evaluation.params.catIds):
        name = str(evaluated.truth.cats[category]['name'])
        mine = categories == category
        threshold, f1 = threshold_of_hits(
            scores[mine], hits[mine], counts[category]
        )
        error = calibration['per_category'].get(name, float('nan'))
        found.append(
            ClassFindings(
                name,
                counts[category],
                class_means(precisions[:, :, index]),
                threshold,
                f1,
                error,
            )
        )
    return found


def _confusion(evaluated: Evaluated, threshold: float) -> np.ndarray:
    """Confusion matrix with the classes in the order of their ids."""
    found = evaluated.evaluation.engine.confusion_matrix(
        iou_thr=IOU_THR, min_score=threshold
    )
    places = {category: i for i, category in enumerate(found['cat_ids'])}
    order = [places[i] for i in evaluated.evaluation.params.catIds]
    order.append(found['num_cats'])
    return found['matrix'].astype(np.int64)[np.ix_(order, order)]


def _by_crowding(
    evaluated: Evaluated, num_of_image: Counter
) -> dict[str, tuple[int, float]]:
    """Number of images and AP, by the number of objects in an image."""
    groups: dict[str, list[int]] = {}
    for low, high in CROWDING:
        name = str(low) if low == high else f'{low} to {high}'
        name = name if high else f'{low} or more'
        groups[name] = [
            image
            for image, number in num_of_image.items()
            if low <= number <= (high or number)
        ]
    groups = {name: images for name, images in groups.items() if images}
    found = evaluated.evaluation.engine.slice_by(groups)
    return {
        name: (len(images), found[name]['AP'])
        for name, images in groups.items()
    }
