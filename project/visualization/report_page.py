# Copyright (c) mmdetr authors. All rights reserved.
"""A report on a test as one HTML page that needs nothing else."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import mmcv
import numpy as np
from PIL import Image

from project.evaluation.detection_report import ERRORS, ClassFindings, Findings
from project.evaluation.f1 import Boxes, Detections
from project.evaluation.layer_report import LayerFindings
from project.visualization.boxes import draw_on_image
from project.visualization.report_charts import (
    RUN_COLORS,
    draw_bars,
    draw_calibration,
    draw_curves,
    draw_ranking,
)

METRICS = {
    'mAP': 'AP',
    'mAP_50': 'AP at IoU 0.5',
    'mAP_75': 'AP at IoU 0.75',
    'mAP_s': 'small objects',
    'mAP_m': 'medium objects',
    'mAP_l': 'large objects',
}
"""How the page calls the metrics of mmdet."""
_CLASS_COLUMNS = ('AP', 'AP50', 'AP75', 'small', 'medium', 'large')
_SIDE = 360  # pixels of a thumbnail, at most
_QUALITY = 75  # of its JPEG
_MAX_CONFUSIONS = 10
_DASH = '-'


@dataclass
class Picture:
    """One image of the page.

    Attributes:
        title: A line of text.
        panels: Caption and JPEG, as a data URI, of each panel.
    """

    title: str
    panels: list[tuple[str, str]]


def render(
    runs: Mapping[str, Findings],
    head: Sequence[tuple[str, str]],
    worst: Sequence[Picture],
    best: Sequence[Picture],
) -> str:
    """Write the page.

    Args:
        runs: Findings by the name of the checkpoint; a second one is what
            the first is compared with.
        head: Names and values of the table at the top.
        worst: The images with the lowest AP.
        best: Those with the highest.

    Returns:
        str: HTML without references to other files.
    """
    first = next(iter(runs.values()))
    return page_template('report_page.html').render(
        title=f'Report: {next(iter(runs))}',
        head=head,
        names=list(runs),
        colors=RUN_COLORS,
        is_comparison=len(runs) > 1,
        metrics=_metric_rows(runs),
        class_columns=_CLASS_COLUMNS,
        classes=_class_rows(runs),
        charts=_charts(runs),
        errors=_error_rows(runs),
        crowding=_crowding_rows(runs),
        confusions=[_confusion(name, x) for name, x in runs.items()],
        calibrations=[
            (name, f'{x.calibration["ece"]:.3f}', f'{x.threshold:.3f}')
            for name, x in runs.items()
        ],
        layers=[
            (name, _layers(x.layers)) for name, x in runs.items() if x.layers
        ],
        thresholds=[
            (name, f'{x.threshold:.3f}', f'{x.f1:.3f}')
            for name, x in runs.items()
        ],
        threshold=f'{first.threshold:.2f}',
        worst=worst,
        best=best,
    )


def page_template(name: str) -> jinja2.Template:
    """Read the template of a page, beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def as_jpeg(image: np.ndarray) -> str:
    """Write an image, (h, w, 3), uint8, RGB, as JPEG into a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=_QUALITY)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/jpeg;base64,{text}'


def _cells(values: Sequence[float], digits: int = 3) -> list[str]:
    """Numbers as text, and the difference of two, with its sign."""
    cells = [_number(value, digits) for value in values]
    if len(values) == 2:
        change = values[0] - values[1]
        cells.append(_DASH if math.isnan(change) else f'{change:+.{digits}f}')
    return cells


def _number(value: float, digits: int = 3) -> str:
    """A number as text; hotcoco's -1 stands for none."""
    return _DASH if math.isnan(value) or value < 0 else f'{value:.{digits}f}'


def _known(value: float) -> float:
    return float('nan') if value < 0 else value


def _metric_rows(runs: Mapping[str, Findings]) -> list[tuple[str, list[str]]]:
    return [
        (label, _cells([_known(x.metrics[name]) for x in runs.values()]))
        for name, label in METRICS.items()
    ]


def _class_rows(runs: Mapping[str, Findings]) -> list[tuple[str, list[str]]]:
    """Name of each class, and the cells of the table."""
    rows = []
    for found in zip(*(x.classes for x in runs.values()), strict=True):
        first: ClassFindings = found[0]
        cells = [str(first.num_objects)]
        cells += _cells([x.precisions[0] for x in found])
        cells += [_number(value) for value in first.precisions[1:]]
        cells += _cells([x.f1 for x in found])
        cells += [f'{first.threshold:.3f}', _number(first.calibration_error)]
        rows.append((first.name, cells))
    return rows


def _error_rows(runs: Mapping[str, Findings]) -> list[tuple[str, list[str]]]:
    rows = []
    for kind, label in ERRORS.items():
        found = [x.errors[kind] for x in runs.values()]
        counts = [str(count) for count, _ in found]
        rows.append((label, [*counts, *_cells([cost for _, cost in found])]))
    return rows


def _crowding_rows(
    runs: Mapping[str, Findings],
) -> list[tuple[str, list[str]]]:
    first = next(iter(runs.values()))
    return [
        (
            name,
            [
                str(number),
                *_cells([_known(x.crowding[name][1]) for x in runs.values()]),
            ],
        )
        for name, (number, _) in first.crowding.items()
    ]


def _charts(runs: Mapping[str, Findings]) -> dict[str, str]:
    first = next(iter(runs.values()))
    sizes = ('mAP_s', 'mAP_m', 'mAP_l')
    return dict(
        curves=draw_curves(runs),
        calibration=draw_calibration(runs),
        errors=draw_bars(
            list(ERRORS.values()),
            {
                name: [x.errors[kind][1] for kind in ERRORS]
                for name, x in runs.items()
            },
            'AP at IoU 0.5 that these errors cost',
        ),
        sizes=draw_bars(
            [METRICS[size] for size in sizes],
            {
                name: [_known(x.metrics[size]) for size in sizes]
                for name, x in runs.items()
            },
            'AP',
        ),
        crowding=draw_bars(
            list(first.crowding),
            {
                name: [_known(x.crowding[key][1]) for key in first.crowding]
                for name, x in runs.items()
            },
            'AP of the images with so many objects',
        ),
    )


def _layers(found: LayerFindings) -> dict[str, Any]:
    """Rows on the decoder layers, and on refiners if there are any."""
    alone: dict[str, list[str]] = {}
    for (part, _), values in found.precisions.items():
        alone.setdefault(part, []).append(_number(values[0]))
    whole = found.precisions['', len(found.ranking)][0]
    return dict(
        num_images=found.num_images,
        rows=[
            (
                str(number),
                [
                    *map(_number, found.precisions['', number]),
                    *map(_signed, (boxes, ranks, quality.hit_correlation)),
                    *map(_number, quality.at_object_count()),
                ],
            )
            for number, (quality, boxes, ranks) in enumerate(
                zip(
                    found.ranking,
                    found.kept_boxes,
                    found.kept_ranks,
                    strict=True,
                ),
                1,
            )
        ],
        refiners=[
            (part or 'all merged, as it detects', cells)
            for part, cells in alone.items()
            if len(alone) > 1 and len(cells) == len(found.ranking)
        ],
        without=[
            (part, _cells([values[0], whole]))
            for (part, _), values in found.precisions.items()
            if part.startswith('without ')
        ],
        charts=draw_ranking(found.ranking),
    )


def _signed(value: float) -> str:
    """A number that may be negative as text."""
    return _DASH if math.isnan(value) else f'{value:.3f}'


def _confusion(name: str, findings: Findings) -> dict[str, Any]:
    """Rows of the confusion matrix, and the most frequent confusions.

    A cell is its count, and its share of the row in [0, 1].
    """
    matrix = findings.confusion
    sums = matrix.sum(1, keepdims=True)
    shares = matrix / np.maximum(sums, 1)
    labels = [x.name for x in findings.classes]
    columns = [*labels, 'missed']
    rows = [*labels, 'background']
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:_MAX_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return dict(
        name=name,
        columns=columns,
        rows=[
            (label, list(zip(counts, share, strict=True)))
            for label, counts, share in zip(
                rows, matrix.tolist(), shares.tolist(), strict=True
            )
        ],
        top=[
            (labels[i], labels[j], int(wrong[i, j]), f'{shares[i, j]:.0%}')
            for i, j in pairs
            if wrong[i, j]
        ],
    )


def draw_picture(
    path: str,
    title: str,
    panels: Sequence[tuple[str, Boxes]],
    classes: Sequence[str],
) -> Picture:
    """Draw boxes on small copies of an image.

    Args:
        path: The image.
        title: Of the picture.
        panels: Caption of each panel, and its boxes in pixels of the image.
        classes: Names of the classes.

    Returns:
        Picture: The picture.
    """
    image = mmcv.imread(path, channel_order='rgb')
    small, scale = mmcv.imrescale(image, (_SIDE, _SIDE), return_scale=True)
    drawn = []
    for caption, boxes in panels:
        names = [classes[label] for label in boxes.labels]
        labels = boxes.labels.tolist()
        if isinstance(boxes, Detections):
            names = [
                f'{name} {score:.2f}'
                for name, score in zip(names, boxes.scores, strict=True)
            ]
        picture = draw_on_image(small, boxes.bboxes * scale, labels, names)
        drawn.append((caption, as_jpeg(np.asarray(picture))))
    return Picture(title, drawn)
