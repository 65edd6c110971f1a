# Copyright (c) mmdetr authors. All rights reserved.
"""Checks the annotations that detections are evaluated against."""

from collections.abc import Sequence

import numpy as np
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import METRICS
from mmengine.config import ConfigDict

from project.preflight.annotations import AnnotationFile
from project.preflight.box_counts import (
    CROWD,
    IGNORED,
    UNLISTED_CATEGORY,
    UNLISTED_IMAGE,
    count_boxes,
)
from project.preflight.config_tree import (
    is_a,
    metric_kinds,
    registered_class,
)
from project.preflight.dataset_report import DatasetReport
from project.preflight.masks import mask_problem

_NEVER_FOUND = {
    'NaN',
    'without a width or height',
    'outside their image',
}


def compares_boxes(metric: ConfigDict) -> bool:
    """Return whether a metric is a ``CocoMetric`` that evaluates."""
    found = registered_class(metric, METRICS)
    is_coco = is_a(found, CocoMetric) and not is_a(found, LVISMetric)
    return is_coco and not metric.get('format_only', False)


def judge_evaluation(
    report: DatasetReport,
    name: str,
    metric: ConfigDict,
    file: AnnotationFile,
) -> None:
    """Find faults that would stop or spoil an evaluation at its end."""
    whose = f'{file.path} of {name}'
    labels = _labels(file, report.classes)
    chosen = (file.images >= 0) & (labels >= 0)
    _judge_keys(report, file, chosen, whose)
    _judge_boxes(report, file, whose)
    _judge_image_ids(report, file, whose)
    _judge_ids(report, file, chosen, whose)
    kinds = metric_kinds(metric)
    if 'proposal_fast' in kinds:
        _judge_fast_proposals(report, file, name)
    if 'segm' in kinds:
        problem = mask_problem(
            file, chosen, report.classes, f"{name} has the metric 'segm'"
        )
        if problem:
            report.refuse(problem)


def _labels(file: AnnotationFile, classes: Sequence[str]) -> np.ndarray:
    """0 for annotations of the classes, -1 for others."""
    is_class = [name in classes for name in file.category_names]
    return np.where([*is_class, False], 0, -1)[file.categories]


def _judge_keys(
    report: DatasetReport, file: AnnotationFile, chosen: np.ndarray, whose: str
) -> None:
    """Warn of missing ``iscrowd``, which the runner sets to 0."""
    missing = np.flatnonzero(chosen & (file.crowds == 2))
    if len(missing):
        report.warn(
            f"{len(missing):,} annotations of {whose} have no 'iscrowd', "
            f'such as {file.place(missing[0])}: they are evaluated as single '
            "objects ('iscrowd': 0)."
        )


def _judge_boxes(
    report: DatasetReport, file: AnnotationFile, whose: str
) -> None:
    """NaN boxes would count as found, other faulty ones never."""
    counted = count_boxes(
        file, report.classes, {*_NEVER_FOUND, CROWD}
    ).left_out
    usual = (CROWD, IGNORED, UNLISTED_CATEGORY, UNLISTED_IMAGE)
    faults = {k: v for k, v in counted.items() if k not in usual}
    if faults.get('NaN'):
        report.refuse(
            f'{faults["NaN"]:,} boxes of {whose} are NaN, and the evaluation '
            'would count them as found; expected [x, y, width, height] in '
            'pixels.'
        )
    elif faults:
        parts = ', '.join(f'{v:,} {k}' for k, v in faults.items())
        report.warn(
            f'{sum(faults.values()):,} boxes of {whose} can never be found, '
            f'and count as missed: {parts}.'
        )


def _judge_fast_proposals(
    report: DatasetReport, file: AnnotationFile, name: str
) -> None:
    """Refuse ``proposal_fast`` on images with different numbers of objects.

    mmdet packs their overlaps into one array, which NumPy refuses.
    """
    single = (file.images >= 0) & (file.crowds != 1)
    per_image = np.bincount(file.images[single], minlength=len(file.image_ids))
    if len(set(per_image.tolist())) > 1:
        report.refuse(
            f"The metric 'proposal_fast' of {name} ends in an error on NumPy "
            '1.24 and later where images have different numbers of objects; '
            "set metric='proposal', which measures the recall with "
            'pycocotools.'
        )


def _judge_image_ids(
    report: DatasetReport, file: AnnotationFile, whose: str
) -> None:
    """Refuse images that the metric does not list: pycocotools asserts."""
    if report.file is None or report.file.path == file.path:
        return
    known, detected = set(file.image_ids), set(report.file.image_ids)
    unknown = [i for i in report.file.image_ids if i not in known]
    if unknown:
        report.refuse(
            f'{len(unknown):,} images of {report.source} ({report.name}) are '
            f'not listed in {whose}, such as that of the id {unknown[0]!r}; '
            'expected the same images in both.'
        )
        return
    others = len(known - detected)
    if others:
        report.warn(
            f'{others:,} of the {len(known):,} images of {whose} are not in '
            f'{report.source} ({report.name}): their objects count as missed.'
        )


def _judge_ids(
    report: DatasetReport, file: AnnotationFile, chosen: np.ndarray, whose: str
) -> None:
    """Check that ids are numbers from 1: to pycocotools, 0 is no match."""
    used = [file.annotation_ids[index] for index in np.flatnonzero(chosen)]
    texts = [value for value in used if isinstance(value, str)]
    if texts:
        report.refuse(
            f'Annotations of {whose} have texts as ids, such as {texts[0]!r}, '
            'which the evaluation cannot count; expected numbers from 1.'
        )
    elif 0 in used:
        report.warn(
            f'An annotation of {whose} has the id 0, which the evaluation '
            'takes for none: whatever finds its object counts as wrong; '
            'expected ids from 1.'
        )
    for what, ids in (
        ('images', file.image_ids),
        ('categories', file.category_ids),
    ):
        if len({isinstance(value, str) for value in ids}) > 1:
            report.refuse(
                f'The ids of the {what} of {whose} are numbers and texts, '
                'which the evaluation cannot sort; expected numbers.'
            )
