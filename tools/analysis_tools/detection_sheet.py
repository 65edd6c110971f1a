# Copyright (c) mmdetr authors. All rights reserved.
"""Draw a sheet of test images: what is there beside what is detected."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mmengine.dataset import BaseDataset, pseudo_collate
from torch import nn

from project.apis import add_model_arguments, load_detector, read_config
from project.utils.errors import UserError

COLORS = (
    '#e6194b', '#0082c8', '#3cb44b', '#f58231', '#911eb4', '#00a5a5',
    '#f032e6', '#b8860b', '#5a5aff', '#8b4513', '#708090', '#c71585',
)  # fmt: skip
"""Colours of the classes, one after the other."""

_HEADER, _PAIR_WIDTH, _PAIR_HEIGHT = 0.55, 5.0, 2.65  # inches
_PAIR_MARGINS = dict(left=0.04, right=0.96, bottom=0.02, top=0.9, wspace=0.03)
_DPI = 110


@dataclass
class Boxes:
    """Boxes of one image.

    Attributes:
        bboxes: (x1, y1, x2, y2) in pixels of the image, shape (num, 4).
        labels: Class indices, shape (num,).
        scores: Confidences, shape (num,); None for ground truth.
    """

    bboxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


@dataclass
class Example:
    """One image of the sheet.

    Attributes:
        image: RGB pixels, uint8, shape (height, width, 3).
        truth: Ground truth.
        detections: What the model found.
    """

    image: np.ndarray
    truth: Boxes
    detections: Boxes


def detect_examples(
    model: nn.Module,
    dataset: BaseDataset,
    num_images: int,
    score_thr: float,
) -> list[Example]:
    """Run a detector on images spread evenly over a dataset.

    Args:
        model: A detector in evaluation mode.
        dataset: A dataset with its test pipeline.
        num_images: How many images; all if there are fewer.
        score_thr: Detections below this score are left out.

    Returns:
        The images in the order of the dataset.
    """
    num_images = min(num_images, len(dataset))
    picked = np.linspace(0, len(dataset) - 1, num_images).round().astype(int)
    examples = []
    for index in picked.tolist():
        info = dataset.get_data_info(index)
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        found = sample.pred_instances
        found = found[found.scores >= score_thr].cpu().numpy()
        truth = [i for i in info['instances'] if not i['ignore_flag']]
        examples.append(
            Example(
                image=mmcv.imread(info['img_path'], channel_order='rgb'),
                truth=Boxes(
                    np.reshape([i['bbox'] for i in truth], (-1, 4)),
                    np.array([i['bbox_label'] for i in truth], dtype=int),
                ),
                detections=Boxes(found.bboxes, found.labels, found.scores),
            )
        )
    return examples


def draw_sheet(
    examples: Sequence[Example],
    classes: Sequence[str],
    path: Path | str,
    title: str,
    num_columns: int = 3,
) -> None:
    """Write a picture of pairs: ground truth left, detections right.

    Args:
        examples: What to draw.
        classes: Names of the classes.
        path: Picture to write; its ending tells the format.
        title: Line above the sheet.
        num_columns: Pairs side by side.
    """
    num_columns = min(num_columns, len(examples))
    num_rows = -(-len(examples) // num_columns)
    heights = (_HEADER, num_rows * _PAIR_HEIGHT)
    figure = Figure(figsize=(num_columns * _PAIR_WIDTH, sum(heights)))
    header, body = figure.subfigures(2, 1, height_ratios=heights)
    header.text(0.04 / num_columns, 0.3, title, fontsize=13, fontweight='bold')
    pairs = body.subfigures(num_rows, num_columns, squeeze=False)
    for pair, example in zip(pairs.flat, examples, strict=False):
        axes = pair.subplots(1, 2, gridspec_kw=_PAIR_MARGINS)
        for axis, boxes, name in zip(
            axes,
            (example.truth, example.detections),
            ('ground truth', 'detections'),
            strict=True,
        ):
            axis.set_title(name, loc='left', fontsize=8, color='#5b6470')
            _draw_image(axis, example.image)
            _draw_boxes(axis, boxes, classes)
    figure.savefig(path, dpi=_DPI)


def _draw_image(axis: Axes, image: np.ndarray) -> None:
    """Show an image in the middle of a square."""
    height, width = image.shape[:2]
    axis.imshow(image, interpolation='lanczos', extent=(0, width, height, 0))
    half = max(height, width) / 2
    axis.set_xlim(width / 2 - half, width / 2 + half)
    axis.set_ylim(height / 2 + half, height / 2 - half)
    axis.set(xticks=(), yticks=(), facecolor='#eceff2')
    axis.spines[:].set_visible(False)


def _draw_boxes(axis: Axes, boxes: Boxes, classes: Sequence[str]) -> None:
    """Draw named boxes; low scores lie below high ones."""
    order = np.arange(len(boxes.labels))
    if boxes.scores is not None:
        order = np.argsort(boxes.scores)
    for index in order:
        x1, y1, x2, y2 = boxes.bboxes[index]
        color = COLORS[boxes.labels[index] % len(COLORS)]
        label = classes[boxes.labels[index]]
        if boxes.scores is not None:
            label += f' {boxes.scores[index]:.2f}'
        axis.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=color,
                linewidth=1.4,
                path_effects=[withStroke(linewidth=2.4, foreground='white')],
            )
        )
        _draw_label(axis, (x1, y1), label, color)


def _draw_label(
    axis: Axes, corner: tuple[float, float], label: str, color: str
) -> None:
    """Write a label above a corner, or below where the panel ends."""
    bottom, top = axis.get_ylim()
    left, right = axis.get_xlim()
    no_room = corner[1] - top < 0.06 * (bottom - top)
    axis.text(
        min(max(corner[0], left), right - 0.25 * (right - left)),
        max(corner[1], top),
        label,
        va='top' if no_room else 'bottom',
        fontsize=6.5,
        color='white',
        bbox=dict(facecolor=color, alpha=0.9, pad=1, linewidth=0),
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', default='detections.png', help='picture to write'
    )
    parser.add_argument(
        '--num-images', type=int, default=12, help='how many test images'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score drawn'
    )
    parser.add_argument('--title', help='line above the sheet')
    add_model_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the sheet that the command line asks for."""
    args = parse_args(argv)
    try:
        config = read_config(args.config, args.cfg_options)
        model, dataset = load_detector(config, args.checkpoint, args.device)
    except UserError as error:
        sys.exit(f'Error: {error}')
    examples = detect_examples(model, dataset, args.num_images, args.score_thr)
    title = args.title or f'{Path(args.config).stem}: ' + (
        f'detections with a score of {args.score_thr} or more'
    )
    draw_sheet(examples, dataset.metainfo['classes'], args.out, title)
    print(f'Detections beside ground truth: {args.out}')


if __name__ == '__main__':
    main()
