# Copyright (c) mmdetr authors. All rights reserved.
"""Draw how well each decoder layer's scores rank its boxes."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.utils import track_iter_progress
from torch import Tensor, nn

from project.apis import (
    add_model_arguments,
    load_detector,
    positive_int,
    read_config,
)
from project.evaluation import RankQuality
from project.utils.errors import UserError


@torch.no_grad()
def predict_layers(model: nn.Module, data: dict) -> tuple[Tensor, Tensor]:
    """Predict with every decoder layer.

    Args:
        model: A detector of this package or of mmdet, whose head gives
            the predictions of all layers.
        data: One image, collated.

    Returns:
        Class probabilities of shape (num_layers, num_queries, num_classes),
        and boxes (x1, y1, x2, y2) in [0, 1] of shape
        (num_layers, num_queries, 4).

    Raises:
        UserError: If the detector gives something else.
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
    model: nn.Module,
    dataset: BaseDataset,
    num_images: int | None = None,
    **settings,
) -> list[RankQuality]:
    """Run a detector over a dataset.

    Args:
        model: In evaluation mode.
        dataset: With its test pipeline.
        num_images: How many images from the first on. By default all.
        **settings: Of :class:`RankQuality`.

    Returns:
        The quality of each decoder layer.

    Raises:
        UserError: If none of the images has objects.
    """
    layers: list[RankQuality] = []
    count = min(num_images or len(dataset), len(dataset))
    for index in track_iter_progress(range(count), file=sys.stderr):
        scores, boxes = predict_layers(model, pseudo_collate([dataset[index]]))
        layers = layers or [RankQuality(**settings) for _ in scores]
        truth = _ground_truth(dataset.get_data_info(index))
        for layer, *predictions in zip(
            layers, scores.cpu().numpy(), boxes.cpu().numpy(), strict=True
        ):
            layer.add(*predictions, *truth)
    if not layers or not layers[0].num_images:
        raise UserError(
            f'None of the {count} images has an object to rank by; name a '
            'test set with annotations, or more of its images'
        )
    return layers


def _ground_truth(info: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (x1, y1, x2, y2) in [0, 1] and labels; crowds are left out."""
    objects = [i for i in info['instances'] if not i['ignore_flag']]
    boxes = np.reshape([i['bbox'] for i in objects], (-1, 4))
    size = np.array([info['width'], info['height']] * 2)
    labels = np.array([i['bbox_label'] for i in objects], dtype=int)
    return (boxes / size).astype(np.float32), labels


def write_tables(layers: Sequence[RankQuality], stem: Path) -> list[Path]:
    """Write one row for each layer, and one for each layer and k.

    Args:
        layers: Of each decoder layer.
        stem: Path of the tables without their endings.

    Returns:
        The files.
    """
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


def draw(layers: Sequence[RankQuality], path: Path, title: str) -> None:
    """Draw correlation by layer, and precision and duplicates by rank.

    Args:
        layers: Of each decoder layer.
        path: Picture to write; its ending tells the format.
        title: Line above the panels.
    """
    figure = Figure(figsize=(15, 4.6), layout='constrained')
    figure.suptitle(title, x=0.01, ha='left', fontsize=13, fontweight='bold')
    left, middle, right = figure.subplots(1, 3)
    _draw_correlations(left, layers)
    ranks = np.arange(1, layers[0].max_rank + 1)
    colors = colormaps['viridis'](np.linspace(0.9, 0.1, len(layers)))
    middle.plot(
        ranks,
        layers[0].best_precision(),
        '--',
        color='#888888',
        label='all objects first',
    )
    for index, (layer, color) in enumerate(
        zip(layers, colors, strict=True), 1
    ):
        name = f'layer {index}'
        middle.plot(ranks, layer.precision(), color=color, label=name)
        right.plot(ranks, layer.duplicates(), color=color, label=name)
    middle.set_title('Precision of the top k', loc='left')
    middle.set_ylim(0, 1)
    right.set_title('Duplicates for each object in the top k', loc='left')
    right.set_ylim(bottom=0)
    for axis in (middle, right):
        axis.set_xscale('log')
        axis.set_xlabel('k')
    for axis in (left, middle, right):
        axis.spines[['top', 'right']].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def _draw_correlations(axis: Axes, layers: Sequence[RankQuality]) -> None:
    """Draw rank correlation against the depth of the layer."""
    depth = np.arange(1, len(layers) + 1)
    for name, values, color in (
        ('all queries', [x.correlation for x in layers], '#12507b'),
        (
            f'queries on an object (IoU {layers[0].iou_thr:g})',
            [x.close_correlation for x in layers],
            '#d98032',
        ),
        (
            'hits, one for each object',
            [x.hit_correlation for x in layers],
            '#4f8a3c',
        ),
    ):
        axis.plot(depth, values, 'o-', label=name, color=color)
    axis.set_title("Spearman's correlation of score and IoU", loc='left')
    axis.set_xlabel('decoder layer')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        default='rank_quality.png',
        help='picture to write; the tables get its name, ending in .csv and '
        '_top-k.csv',
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        help='images of the test set; None for all',
    )
    parser.add_argument(
        '--max-rank',
        type=positive_int,
        default=100,
        help='largest k of the top k',
    )
    parser.add_argument(
        '--iou-thr', type=float, default=0.5, help='overlap of a hit'
    )
    parser.add_argument('--title', help='line above the picture')
    add_model_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw and write what the command line asks for."""
    args = parse_args(argv)
    path = Path(args.out)
    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix('.') not in formats:
        sys.exit(
            f'Error: --out {path} should end in .png or another format of '
            f'pictures: {", ".join(sorted(formats))}.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        config = read_config(args.config, args.cfg_options)
        model, dataset = load_detector(config, args.checkpoint, args.device)
        layers = measure(
            model,
            dataset,
            args.num_images,
            max_rank=args.max_rank,
            iou_thr=args.iou_thr,
        )
    except UserError as error:
        sys.exit(f'Error: {error}')
    title = args.title or (
        f'{Path(args.config).stem}: {layers[0].num_images} images with objects'
    )
    tables = write_tables(layers, path.with_suffix(''))
    draw(layers, path, title)
    print(f'Rank quality: {path}, {", ".join(map(str, tables))}')


if __name__ == '__main__':
    main()
