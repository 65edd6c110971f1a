# Copyright (c) mmdetr authors. All rights reserved.
"""Rank correlation by layer, and precision and duplicates by rank."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from project.evaluation import RankQuality
from project.utils.errors import UserError


def check_format(path: Path) -> None:
    """Raise unless the suffix of a file is a picture format."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix('.') not in formats:
        raise UserError(
            f'--out {path} should end in .png or another format of '
            f'pictures: {", ".join(sorted(formats))}.'
        )


def draw(layers: Sequence[RankQuality], path: Path, title: str) -> None:
    """Draw correlation by layer, and precision and duplicates by rank.

    Args:
        layers: Results of each decoder layer.
        path: Output file; its suffix gives the format.
        title: Title of the picture.
    """
    figure = Figure(figsize=(15, 4.6), layout='constrained')
    figure.suptitle(title, x=0.01, ha='left', fontsize=13, fontweight='bold')
    for (name, plot), axis in zip(
        PLOTS.items(), figure.subplots(1, 3), strict=True
    ):
        plot(axis, layers)
        axis.set_title(name, loc='left')
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
    axis.set_xlabel('decoder layer')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_precision(axis: Axes, layers: Sequence[RankQuality]) -> None:
    """Draw the precision of the top k, and the best possible one."""
    best = layers[0].best_precision()
    axis.plot(
        np.arange(1, len(best) + 1),
        best,
        '--',
        color='#888888',
        label='all objects first',
    )
    _draw_over_ranks(axis, [layer.precision() for layer in layers])
    axis.set_ylim(0, 1)


def _draw_duplicates(axis: Axes, layers: Sequence[RankQuality]) -> None:
    """Draw the duplicates for each object in the top k."""
    _draw_over_ranks(axis, [layer.duplicates() for layer in layers])
    axis.set_ylim(bottom=0)


def _draw_over_ranks(axis: Axes, curves: Sequence[np.ndarray]) -> None:
    """Draw a curve of each layer."""
    colors = colormaps['viridis'](np.linspace(0.9, 0.1, len(curves)))
    for number, (curve, color) in enumerate(
        zip(curves, colors, strict=True), 1
    ):
        ranks = np.arange(1, len(curve) + 1)
        axis.plot(ranks, curve, color=color, label=f'layer {number}')
    axis.set_xscale('log')
    axis.xaxis.set_major_formatter('{x:g}')
    axis.set_xlabel('k')


PLOTS: dict[str, Callable[[Axes, Sequence[RankQuality]], None]] = {
    "Spearman's correlation of score and IoU": _draw_correlations,
    'Precision of the top k': _draw_precision,
    'Duplicates for each object in the top k': _draw_duplicates,
}
"""What draws the results of each decoder layer, by its title."""
