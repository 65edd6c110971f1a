# Copyright (c) mmdetr authors. All rights reserved.
"""A sheet of test images with ground truth and detections."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mmdet.models import BaseDetector
from mmengine.dataset import BaseDataset, pseudo_collate

from project.evaluation.f1 import Boxes, Detections, best_threshold
from project.visualization.boxes import Extent, color_of, place_label

_HEADER, _PAIR_WIDTH, _PAIR_HEIGHT = 0.55, 5.0, 2.65  # inches
_PAIR_MARGINS = dict(left=0.04, right=0.96, bottom=0.02, top=0.9, wspace=0.03)
_DPI = 110
_MAX_FOR_F1 = 200  # images


@dataclass
class Example:
    """One image of the sheet.

    Attributes:
        path: Path of the image.
        truth: Ground truth.
        detections: Detections of the model.
    """

    path: str
    truth: Boxes
    detections: Detections

    def above(self, score_thr: float) -> 'Example':
        """Drop detections below a score."""
        kept = self.detections.scores >= score_thr
        return replace(self, detections=self.detections.masked(kept))


def draw_detections(
    model: BaseDetector,
    dataset: BaseDataset,
    path: Path | str,
    title: str,
    num_images: int = 12,
    score_thr: float | None = None,
) -> None:
    """Draw the detections of images spread evenly over a dataset.

    Args:
        model: A detector in evaluation mode.
        dataset: A dataset with its test pipeline.
        path: Output file; its suffix gives the format.
        title: Title of the sheet; the threshold is appended.
        num_images: Number of images, at most.
        score_thr: Lowest score of the detections. By default the one with the
            highest F1, over up to 200 images.
    """
    examples, threshold, f1 = detect_examples(
        model, dataset, num_images, score_thr
    )
    title += f': detections with a score of {threshold:.2f} or more'
    if f1 is not None:
        title += f', where F1 is highest ({f1:.2f})'
    draw_sheet(examples, dataset.metainfo['classes'], path, title)


def detect_examples(
    model: BaseDetector,
    dataset: BaseDataset,
    num_images: int,
    score_thr: float | None = None,
) -> tuple[list[Example], float, float | None]:
    """Run a detector on images spread evenly over a dataset.

    Args:
        model: A detector in evaluation mode.
        dataset: A dataset with its test pipeline.
        num_images: Number of images, at most.
        score_thr: As in :func:`draw_detections`.

    Returns:
        The images in the order of the dataset, the lowest score, and F1 at
        it; None if ``score_thr`` was given.
    """
    picked = _spread(num_images, len(dataset))
    for_f1 = _spread(_MAX_FOR_F1, len(dataset)) if score_thr is None else []
    indices = sorted({*picked, *for_f1})
    found = {i: _detect_one(model, dataset, i) for i in indices}
    f1 = None
    if score_thr is None:
        pairs = [(x.detections, x.truth) for x in found.values()]
        score_thr, f1 = best_threshold(pairs)
    return [found[i].above(score_thr) for i in picked], score_thr, f1


def _spread(number: int, size: int) -> list[int]:
    """Up to ``number`` of ``size`` indices, evenly spread."""
    picked = np.linspace(0, size - 1, min(number, size))
    return picked.round().astype(int).tolist()


def _detect_one(
    model: BaseDetector, dataset: BaseDataset, index: int
) -> Example:
    """Run a detector on one image, with detections of any score."""
    info = dataset.get_data_info(index)
    with torch.no_grad():
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
    found = sample.pred_instances.cpu().numpy()
    truth = [i for i in info['instances'] if not i['ignore_flag']]
    return Example(
        path=info['img_path'],
        truth=Boxes(
            np.reshape([i['bbox'] for i in truth], (-1, 4)),
            np.array([i['bbox_label'] for i in truth], dtype=int),
        ),
        detections=Detections(found.bboxes, found.labels, found.scores),
    )


def draw_sheet(
    examples: Sequence[Example],
    classes: Sequence[str],
    path: Path | str,
    title: str,
    num_columns: int = 3,
) -> None:
    """Write a picture with ground truth and detections side by side.

    Args:
        examples: The images.
        classes: Names of the classes.
        path: Output file; its suffix gives the format.
        title: Title of the sheet.
        num_columns: Number of pairs in a row.
    """
    num_columns = min(num_columns, len(examples))
    num_rows = -(-len(examples) // num_columns)
    heights = (_HEADER, num_rows * _PAIR_HEIGHT)
    figure = Figure(figsize=(num_columns * _PAIR_WIDTH, sum(heights)))
    FigureCanvasAgg(figure)  # needed to measure the labels
    header, body = figure.subfigures(
        2, 1, squeeze=False, height_ratios=heights
    ).flat
    header.text(0.04 / num_columns, 0.3, title, fontsize=13, fontweight='bold')
    pairs = body.subfigures(num_rows, num_columns, squeeze=False)
    for pair, example in zip(pairs.flat, examples, strict=False):
        axes = pair.subplots(1, 2, gridspec_kw=_PAIR_MARGINS)
        image = mmcv.imread(example.path, channel_order='rgb')
        for axis, boxes, name in zip(
            axes,
            (example.truth, example.detections),
            ('ground truth', 'detections'),
            strict=True,
        ):
            axis.set_title(name, loc='left', fontsize=8, color='#5b6470')
            draw_image(axis, image)
            draw_boxes(axis, boxes, classes)
    figure.savefig(path, dpi=_DPI)


def draw_image(axis: Axes, image: np.ndarray) -> None:
    """Show an image centred in a square panel.

    Args:
        axis: The panel.
        image: RGB pixels, uint8, shape (height, width, 3).
    """
    height, width = image.shape[:2]
    axis.imshow(image, interpolation='lanczos', extent=(0, width, height, 0))
    half = max(height, width) / 2
    axis.set_xlim(width / 2 - half, width / 2 + half)
    axis.set_ylim(height / 2 + half, height / 2 - half)
    axis.set(xticks=(), yticks=(), facecolor='#eceff2')
    axis.spines[:].set_visible(False)


def draw_boxes(axis: Axes, boxes: Boxes, classes: Sequence[str]) -> None:
    """Draw boxes with class names, high scores on top.

    Args:
        axis: A panel with an image.
        boxes: Boxes in pixels of the image.
        classes: Names of the classes.
    """
    order = np.arange(len(boxes.labels))
    if isinstance(boxes, Detections):
        order = np.argsort(boxes.scores)
    for rank, index in enumerate(order):
        x1, y1, x2, y2 = boxes.bboxes[index]
        axis.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=color_of(boxes.labels[index]),
                linewidth=1.4,
                path_effects=[withStroke(linewidth=2.4, foreground='white')],
                zorder=2 + rank / len(order),
            )
        )
    placed: list[Extent] = []
    for index in order[::-1]:  # the best score has the first choice
        label = classes[boxes.labels[index]]
        if isinstance(boxes, Detections):
            label += f' {boxes.scores[index]:.2f}'
        color = color_of(boxes.labels[index])
        _draw_label(axis, boxes.bboxes[index], label, color, placed)


def _draw_label(
    axis: Axes, box: np.ndarray, label: str, color: str, placed: list[Extent]
) -> None:
    """Draw a label at the edge of its box, where it overlaps no other.

    ``placed`` are the extents of earlier labels, in pixels of the figure; that
    of this label is appended.
    """
    text = axis.text(
        0,
        0,
        label,
        fontsize=6.5,
        color='white',
        bbox=dict(facecolor=color, alpha=0.9, pad=1, linewidth=0),
        va='bottom',
        zorder=4,
    )
    size = text.get_window_extent().size
    # In the figure y grows upwards.
    (x1, y1), (x2, y2) = axis.transData.transform(box.reshape(2, 2))
    panel = axis.get_window_extent()
    frame = (panel.x0, -panel.y1, panel.x1, -panel.y0)
    extent = place_label((x1, -y1, x2, -y2), size, frame, placed)
    placed.append(extent)
    x, y = axis.transData.inverted().transform((extent[0], -extent[3]))
    text.set_position((x, y))
