# Copyright (c) mmdetr authors. All rights reserved.
"""Measures how well the scores of each decoder layer rank its boxes."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.utils import track_iter_progress
from torch import Tensor

from project.evaluation.rank_quality import RankQuality
from project.utils.errors import UserError


@torch.no_grad()
def predict_layers(model: BaseDetector, data: dict) -> tuple[Tensor, Tensor]:
    """Predict with every decoder layer.

    Args:
        model: A detector of this package or of mmdet whose head outputs the
            predictions of all layers.
        data: A collated batch of one image.

    Returns:
        Class probabilities of shape (num_layers, num_queries, num_classes),
        and boxes (x1, y1, x2, y2) in [0, 1] of shape
        (num_layers, num_queries, 4).

    Raises:
        UserError: If the detector has other outputs.
    """
    outputs = model(**model.data_preprocessor(data), mode='tensor')
    is_pair = isinstance(outputs, tuple) and len(outputs) == 2
    if not is_pair or any(getattr(x, 'ndim', 0) != 4 for x in outputs):
        raise UserError(
            f'{type(model).__name__} gives no predictions of decoder layers '
            'to compare: expected scores and boxes of '
            '(layers, images, queries, ...)'
        )
    scores, boxes = (output[:, 0].float() for output in outputs)
    if model.bbox_head.loss_cls.use_sigmoid:
        scores = scores.sigmoid()
    else:  # the last class is "no object"
        scores = scores.softmax(-1)[..., :-1]
    return scores, bbox_cxcywh_to_xyxy(boxes)


def measure(
    model: BaseDetector,
    dataset: BaseDataset,
    num_images: int | None = None,
    **settings: Any,
) -> list[RankQuality]:
    """Measure the ranking of each decoder layer over a dataset.

    Args:
        model: A detector in evaluation mode.
        dataset: A dataset with its test pipeline.
        num_images: Number of images, from the first on. Defaults to all.
        **settings: As in :class:`RankQuality`.

    Raises:
        UserError: If no image has objects.
    """
    layers: list[RankQuality] = []
    count = min(num_images or len(dataset), len(dataset))
    for index in track_iter_progress(range(count), file=sys.stderr):
        scores, boxes = predict_layers(model, pseudo_collate([dataset[index]]))
        layers = layers or [RankQuality(**settings) for _ in scores]
        truth = _ground_truth(dataset.get_data_info(index))
        predictions = zip(
            scores.cpu().numpy(), boxes.cpu().numpy(), strict=True
        )
        for layer, prediction in zip(layers, predictions, strict=True):
            layer.add(*prediction, *truth)
    if not layers or not layers[0].num_images:
        raise UserError(
            f'None of the {count} images has an object to rank by; name a '
            'test set with annotations, or more of its images'
        )
    return layers


def _ground_truth(info: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (x1, y1, x2, y2) in [0, 1] and labels, without crowds."""
    objects = [i for i in info['instances'] if not i['ignore_flag']]
    boxes = np.reshape([i['bbox'] for i in objects], (-1, 4))
    size = np.array([info['width'], info['height']] * 2)
    labels = np.array([i['bbox_label'] for i in objects], dtype=int)
    return (boxes / size).astype(np.float32), labels


def write_tables(layers: Sequence[RankQuality], stem: Path) -> list[Path]:
    """Write one row for each layer, and one for each layer and k."""
    summary, curves = Path(f'{stem}.csv'), Path(f'{stem}_top-k.csv')
    with summary.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                'layer',
                'rank_correlation',
                'rank_correlation_on_objects',
                'rank_correlation_of_hits',
                'precision_at_object_count',
                'duplicates_per_object_at_object_count',
            ]
        )
        for index, layer in enumerate(layers, 1):
            numbers = (
                layer.correlation,
                layer.close_correlation,
                layer.hit_correlation,
                *layer.at_object_count(),
            )
            writer.writerow([index, *(f'{x:.4f}' for x in numbers)])
    with curves.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                'layer',
                'k',
                'precision',
                'best_precision',
                'duplicates_per_object',
            ]
        )
        for index, layer in enumerate(layers, 1):
            columns = (
                layer.precision(),
                layer.best_precision(),
                layer.duplicates(),
            )
            for k, row in enumerate(zip(*columns, strict=True), 1):
                writer.writerow([index, k, *(f'{x:.4f}' for x in row)])
    return [summary, curves]
