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
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from project.engine.runner.checkpoints import check_checkpoint
from project.engine.runner.checks import check_data, check_model
from project.engine.runner.resolve import resolve_config
from project.utils.errors import UserError

COLORS = (
    '#e6194b', '#0082c8', '#3cb44b', '#f58231', '#911eb4', '#00a5a5',
    '#f032e6', '#b8860b', '#5a5aff', '#8b4513', '#708090', '#c71585',
)  # fmt: skip
"""Colours of the classes, one after the other."""

_PANEL = 2.3  # inches
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
    width = num_columns * (2 * _PANEL + 0.35) + 0.25
    height = num_rows * (_PANEL + 0.12) + 1.15
    figure = Figure(figsize=(width, height))
    figure.text(
        0.25 / width,
        1 - 0.22 / height,
        title,
        va='top',
        fontsize=13,
        fontweight='bold',
    )
    for index, example in enumerate(examples):
        row, column = divmod(index, num_columns)
        left = 0.25 + column * (2 * _PANEL + 0.35)
        bottom = height - 1.0 - (row + 1) * (_PANEL + 0.12)
        for side, boxes in enumerate((example.truth, example.detections)):
            axis = figure.add_axes(
                (
                    (left + side * (_PANEL + 0.05)) / width,
                    bottom / height,
                    _PANEL / width,
                    _PANEL / height,
                )
            )
            _draw_panel(axis, example.image, boxes, classes)
            if row == 0:
                axis.set_title(
                    ('ground truth', 'detections')[side],
                    fontsize=10,
                    color='#5b6470',
                )
    figure.savefig(path, dpi=_DPI)


def _draw_panel(
    axis: Axes, image: np.ndarray, boxes: Boxes, classes: Sequence[str]
) -> None:
    """Draw an image with named boxes; low scores lie below high ones."""
    height, width = image.shape[:2]
    axis.imshow(image, interpolation='lanczos', extent=(0, width, height, 0))
    axis.set_anchor('N')
    axis.set_axis_off()
    halo = [withStroke(linewidth=2.6, foreground='white', alpha=0.85)]
    order = range(len(boxes.labels))
    if boxes.scores is not None:
        order = np.argsort(boxes.scores)
    for index in order:
        x1, y1, x2, y2 = np.clip(
            boxes.bboxes[index], 0, (width, height, width, height)
        )
        color = COLORS[boxes.labels[index] % len(COLORS)]
        axis.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=color,
                linewidth=1.3,
                path_effects=halo,
            )
        )
        label = classes[boxes.labels[index]]
        if boxes.scores is not None:
            label += f' {boxes.scores[index]:.2f}'
        inside = y1 < 0.07 * height  # no room above the box
        axis.text(
            min(x1, 0.8 * width),
            y1,
            label,
            va='top' if inside else 'bottom',
            fontsize=6,
            color='white',
            clip_on=True,
            bbox=dict(facecolor=color, alpha=0.85, pad=0.8, linewidth=0),
        )


def load_detector(
    config: Config, checkpoint: str, device: str
) -> tuple[nn.Module, BaseDataset]:
    """Build model and test dataset of a config.

    Args:
        config: A complete config.
        checkpoint: File with the weights.
        device: Such as ``'cpu'`` or ``'cuda'``.

    Returns:
        The model in evaluation mode, and the dataset.

    Raises:
        UserError: If config, checkpoint and data do not go together.
    """
    config = resolve_config(config)
    check_model(config)
    check_data(config, ['test'])
    init_default_scope(config.get('default_scope', 'mmdet'))
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model)
    check_checkpoint(checkpoint, model)
    load_checkpoint(model, checkpoint, map_location='cpu')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    return model.to(device).eval(), dataset


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
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where the model runs',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the sheet that the command line asks for."""
    args = parse_args(argv)
    if not Path(args.config).is_file():
        sys.exit(f'Error: The config {args.config} does not exist.')
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options or {})
    try:
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
