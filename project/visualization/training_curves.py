# Copyright (c) mmdetr authors. All rights reserved.
"""Curves of loss and AP of a training, or of AP of several."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from project.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

METRICS = {
    'coco/bbox_mAP_50': ('AP at IoU 0.5', '#d98032', 'bottom'),
    'coco/bbox_mAP': ('AP', '#12507b', 'top'),
}
"""Curves of the right panel: label, colour and vertical alignment of the label
by metric. The second is never above the first, so labels do not overlap."""

_RUN_COLORS = ('#12507b', '#d98032', '#3f8f5b', '#a23b52', '#7a5ea8')
_SMOOTHING = 0.06  # window of the running mean as a share of the curve
_GREY = '#5b6470'
_STYLE: 'dict[RcKeyType, Any]' = {
    'font.size': 10,
    'axes.edgecolor': '#b8bec6',
    'axes.labelcolor': _GREY,
    'axes.grid': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': '#e8ebee',
    'xtick.color': _GREY,
    'ytick.color': _GREY,
}


@dataclass
class TrainingCurves:
    """Logged values of a training.

    Attributes:
        losses: (iteration, total loss) of every log entry.
        metrics: (iteration, value) of every evaluation, by metric.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def read_curves(work_dir: Path | str) -> TrainingCurves:
    """Read the logs of all runs in a work dir, in order of time.

    A resumed run replaces what the run before logged after that iteration; a
    new run replaces all of it.

    Raises:
        UserError: If there is no log of a training.
    """
    curves = TrainingCurves()
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        entries = _entries(path)
        trained = [entry for entry in entries if 'loss' in entry]
        if trained:
            _drop_after(curves, _last_step_before(curves, trained[0]['step']))
            _append(curves, entries)
    if not curves.losses:
        raise UserError(
            f'{work_dir} has no log of a training; expected '
            'TIMESTAMP/vis_data/scalars.json in it, as train.py writes it.'
        )
    return curves


def _entries(path: Path) -> list[dict]:
    """Read a log, skipping incomplete lines of a killed training."""
    entries = []
    text = path.read_text(encoding='utf-8', errors='replace')
    for line in text.splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return entries


def _last_step_before(curves: TrainingCurves, step: int) -> int:
    """The last logged iteration before ``step``, 0 without one."""
    return max((s for s, _ in curves.losses if s < step), default=0)


def _drop_after(curves: TrainingCurves, step: int) -> None:
    """Drop values that were logged after an iteration."""
    series = [curves.losses, *curves.metrics.values()]
    for points in series:
        points[:] = [point for point in points if point[0] <= step]


def _append(curves: TrainingCurves, entries: Sequence[dict]) -> None:
    """Add the entries of one run.

    The step of an evaluation may be an epoch or an iteration, so the
    iteration is taken from the entry before.
    """
    step = 0
    for entry in entries:
        if 'loss' in entry:
            step = entry['step']
            curves.losses.append((step, entry['loss']))
        for name in METRICS:
            if name in entry:
                points = curves.metrics.setdefault(name, [])
                points.append((step, entry[name]))


def draw_curves(curves: TrainingCurves, path: Path | str, title: str) -> None:
    """Write a picture with the loss on the left and AP on the right.

    Args:
        curves: The curves.
        path: Output file; its suffix gives the format.
        title: Title of the picture.
    """
    with rc_context(_STYLE):
        num_panels = 2 if curves.metrics else 1
        figure = Figure(figsize=(5.6 * num_panels, 4.2))
        axes = figure.subplots(1, num_panels, squeeze=False)
        figure.suptitle(title, x=0.02, ha='left', fontweight='bold')
        _draw_losses(axes[0, 0], curves.losses)
        if curves.metrics:
            _draw_metrics(axes[0, 1], curves.metrics)
        for axis in axes[0]:
            axis.set_xlabel('iteration')
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        figure.tight_layout(w_pad=3)
        figure.savefig(path, dpi=130)


def _draw_losses(axis: Axes, losses: Sequence[tuple[int, float]]) -> None:
    """Draw the total loss and its running mean."""
    steps, values = np.array(losses).T
    axis.set_title('total loss', loc='left', color=_GREY)
    axis.plot(steps, values, color='#c3cad2', linewidth=1)
    half = max(1, round(_SMOOTHING * len(values) / 2))
    means = [
        values[max(0, i - half) : i + half + 1].mean()
        for i in range(len(values))
    ]
    axis.plot(steps, means, color='#12507b', linewidth=2)
    axis.annotate(
        f'{means[-1]:.2f}',
        (steps[-1], means[-1]),
        xytext=(0, 8),
        textcoords='offset points',
        ha='center',
        color='#12507b',
    )
    axis.set_ylim(bottom=0)


def _draw_metrics(
    axis: Axes, metrics: dict[str, list[tuple[int, float]]]
) -> None:
    """Draw AP at the evaluations, with labels at the ends of the curves."""
    axis.set_title(
        'detection on the validation split', loc='left', color=_GREY
    )
    for name, (label, color, side) in METRICS.items():
        if name not in metrics:
            continue
        steps, values = np.array(metrics[name]).T
        axis.plot(steps, values, 'o-', color=color, linewidth=2, markersize=4)
        axis.annotate(
            f'{label}  {values[-1]:.3f}',
            (steps[-1], values[-1]),
            xytext=(9, 0),
            textcoords='offset points',
            va=side,
            color=color,
            annotation_clip=False,
        )
    axis.set_ylim(bottom=0)


def draw_comparison(
    runs: Mapping[str, TrainingCurves], path: Path | str, title: str
) -> None:
    """Write a picture with the AP of several trainings, a panel per metric.

    Losses are not drawn, since their sums are not comparable between
    different losses.

    Args:
        runs: Curves by the name of each training.
        path: Output file; its suffix gives the format.
        title: Title of the picture.

    Raises:
        UserError: If none of them was evaluated.
    """
    names = [m for m in METRICS if any(m in x.metrics for x in runs.values())]
    if not names:
        raise UserError(
            f'{", ".join(runs)} hold no evaluation to compare; expected '
            f'{" or ".join(METRICS)} in the logs'
        )
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.6 * len(names), 4.2))
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        figure.suptitle(title, x=0.02, ha='left', fontweight='bold')
        for axis, name in zip(axes, names, strict=True):
            axis.set_title(METRICS[name][0], loc='left', color=_GREY)
            _draw_runs(axis, {k: x.metrics.get(name) for k, x in runs.items()})
        axes[0].legend(frameon=False)
        figure.tight_layout(w_pad=3)
        figure.savefig(path, dpi=130)


def _draw_runs(
    axis: Axes, runs: Mapping[str, list[tuple[int, float]] | None]
) -> None:
    """Draw one metric of each training."""
    for index, (label, points) in enumerate(runs.items()):
        if not points:
            continue
        color = _RUN_COLORS[index % len(_RUN_COLORS)]
        axis.plot(
            *np.array(points).T,
            'o-',
            color=color,
            label=label,
            linewidth=2,
            markersize=4,
        )
        axis.annotate(
            f'{points[-1][1]:.3f}',
            points[-1],
            xytext=(0, 6),
            textcoords='offset points',
            ha='center',
            color=color,
        )
    axis.set_xlabel('iteration')
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw_trainings(
    work_dirs: Sequence[Path], path: Path | str, title: str
) -> None:
    """Draw the curves of one training, or compare those of several.

    Args:
        work_dirs: Work dirs of tools/train.py.
        path: Output file; its suffix gives the format.
        title: Title of the picture.

    Raises:
        UserError: If one has no log, or two of them have the same name.
    """
    runs = {folder.name: read_curves(folder) for folder in work_dirs}
    if len(runs) < len(work_dirs):
        raise UserError(
            'the work dirs have one name twice; it is what tells their '
            'curves apart'
        )
    if len(runs) == 1:
        (curves,) = runs.values()
        draw_curves(curves, path, title)
    else:
        draw_comparison(runs, path, title)
