# Copyright (c) mmdetr authors. All rights reserved.
"""Charts of a report, as SVG within the page."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from project.evaluation import RankQuality
from project.evaluation.detection_report import Findings
from project.visualization.rank_quality import PLOTS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

RUN_COLORS = ('#12507b', '#d98032')
_GREY = '#5b6470'
_AS_TEXT: 'dict[RcKeyType, Any]' = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mmdetr',
}
_STYLE: 'dict[RcKeyType, Any]' = {
    'font.size': 9,
    'axes.edgecolor': '#b8bec6',
    'axes.labelcolor': _GREY,
    'xtick.color': _GREY,
    'ytick.color': _GREY,
}
_SIZE = (4.8, 3.3)  # inches
_DASHES = ('-', '--', ':')


def svg(figure: Figure) -> str:
    """Write a figure as an SVG element, with its words as text."""
    buffer = io.StringIO()
    with rc_context(_AS_TEXT):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    text = buffer.getvalue()
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.S)
    text = re.sub(r'<g id="[^"]*">', '<g>', text)  # one page, many figures
    return text[text.index('<svg') :]


@contextmanager
def _chart(height: float = _SIZE[1]) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one panel, in the style of the page."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(_SIZE[0], height), layout='constrained')
        axis = figure.subplots()
        axis.spines[['top', 'right']].set_visible(False)
        yield figure, axis


def draw_curves(runs: Mapping[str, Findings]) -> str:
    """Draw precision over recall, mean of all classes.

    Args:
        runs: Findings by the name of the checkpoint, one or two.

    Returns:
        str: An SVG element; so do the others.
    """
    with _chart() as (figure, axis):
        for color, (run, findings) in zip(
            RUN_COLORS, runs.items(), strict=False
        ):
            for dash, (name, values) in zip(
                _DASHES, findings.curves.items(), strict=False
            ):
                label = name if len(runs) == 1 else f'{run}, {name}'
                axis.plot(
                    findings.recalls, values, dash, color=color, label=label
                )
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set(xlabel='recall', ylabel='precision')
        axis.legend(frameon=False, fontsize=8)
        return svg(figure)


def draw_calibration(runs: Mapping[str, Findings]) -> str:
    """Draw the share of hits over the score."""
    with _chart() as (figure, axis):
        axis.plot((0, 1), (0, 1), '--', color='#b8bec6', label='calibrated')
        for color, (run, findings) in zip(
            RUN_COLORS, runs.items(), strict=False
        ):
            bins = [b for b in findings.calibration['bins'] if b['count']]
            scores = [b['avg_confidence'] for b in bins]
            shares = [b['avg_accuracy'] for b in bins]
            axis.plot(scores, shares, 'o-', color=color, label=run)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set(xlabel='score', ylabel='share of hits')
        axis.legend(frameon=False, fontsize=8)
        return svg(figure)


def draw_ranking(layers: Sequence[RankQuality]) -> dict[str, str]:
    """Draw how well the scores of each decoder layer rank its boxes.

    Args:
        layers: Results of each layer.

    Returns:
        dict[str, str]: SVG elements by their titles.
    """
    drawn = {}
    for title, plot in PLOTS.items():
        with _chart() as (figure, axis):
            plot(axis, layers)
            axis.legend(frameon=False, fontsize=8)
            drawn[title] = svg(figure)
    return drawn


def draw_bars(
    labels: Sequence[str], runs: Mapping[str, Sequence[float]], title: str
) -> str:
    """Draw horizontal bars, with a group for each label.

    Args:
        labels: What each bar is of, from top to bottom.
        runs: Values by the name of the checkpoint; NaN is left out.
        title: Of the axis of values.
    """
    count = len(labels) * len(runs)
    with _chart(max(1.4, 0.7 + 0.28 * count)) as (figure, axis):
        places = np.arange(len(labels), dtype=float)
        height = 0.8 / len(runs)
        for index, (run, values) in enumerate(runs.items()):
            drawn = axis.barh(
                places + (index - (len(runs) - 1) / 2) * height,
                np.nan_to_num(np.asarray(values, float)),
                height * 0.9,
                color=RUN_COLORS[index % len(RUN_COLORS)],
                label=run,
            )
            shown = ['' if np.isnan(v) else f'{v:.3f}' for v in values]
            axis.bar_label(drawn, shown, padding=3, fontsize=8, color=_GREY)
        axis.set_yticks(places, labels)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set_xlim(left=0)
        axis.set_xlabel(title)
        if len(runs) > 1:
            axis.legend(frameon=False, fontsize=8)
        return svg(figure)
