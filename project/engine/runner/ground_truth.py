# Copyright (c) mmdetr authors. All rights reserved.
"""Completes the annotations that detections are evaluated against."""

from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator


def complete_annotations(evaluator: Evaluator) -> None:
    """Set ``iscrowd=0`` where an annotation has none.

    Without it pycocotools would end the first evaluation with a KeyError.

    Args:
        evaluator (Evaluator): Its COCO metrics' annotations are changed.
    """
    for metric in evaluator.metrics:
        truth = getattr(metric, '_coco_api', None)
        if isinstance(metric, CocoMetric) and truth is not None:
            for annotation in truth.dataset.get('annotations', ()):
                annotation['iscrowd'] = annotation.get('iscrowd') or 0
