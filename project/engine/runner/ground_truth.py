# Copyright (c) mmdetr authors. All rights reserved.
"""Completes what detections are compared with."""

from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator


def complete_annotations(evaluator: Evaluator) -> None:
    """Take annotations without ``iscrowd`` for single objects.

    pycocotools, which reads it of each annotation, would end the first
    evaluation with a KeyError.

    Args:
        evaluator (Evaluator): Its metrics' annotations are changed.
    """
    for metric in evaluator.metrics:
        truth = getattr(metric, '_coco_api', None)
        if isinstance(metric, CocoMetric) and truth is not None:
            for annotation in truth.dataset.get('annotations', ()):
                annotation['iscrowd'] = annotation.get('iscrowd') or 0
