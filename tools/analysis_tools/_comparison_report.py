# Copyright (c) mmdetr authors. All rights reserved.
"""Table and picture of several methods under one budget."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl

mpl.use('Agg')

from matplotlib import pyplot as plt

from project.checkpoints.writing import write_text

Trained = Mapping[str, Mapping[str, Mapping[str, float]]]
"""AP in [0, 1] by method, seed and epoch."""


def write_report(
    out: Path, settings: Mapping[str, Any], trained: Trained, steps: Mapping
) -> None:
    """Write results.json, table.md and side_by_side.svg.

    Args:
        out: The folder.
        settings: What all trainings have in common, ``epochs`` among it.
        trained: AP of each training.
        steps: ``seconds`` and ``peak_mib`` of a training step by method.
    """
    epochs = [str(epoch) for epoch in settings['epochs']]
    content = dict(settings=settings, ap=trained, steps=steps)
    text = json.dumps(content, indent=1) + '\n'
    write_text(str(out / 'results.json'), text)
    write_text(str(out / 'table.md'), table(epochs, trained, steps))
    draw(out / 'side_by_side.svg', epochs, trained, steps)


def at_epoch(seeds: Mapping[str, Mapping], epoch: str) -> list[float]:
    """AP of all trainings of a method at an epoch, in percent."""
    return [100 * found[epoch] for found in seeds.values() if epoch in found]


def table(epochs: Sequence[str], trained: Trained, steps: Mapping) -> str:
    """Format the mean and the range of all seeds as Markdown.

    Args:
        epochs: When AP was measured.
        trained: AP of each training.
        steps: Seconds and memory of a step.
    """
    heads = [f'AP after {epochs[0]}', *epochs[1:]]
    heads[-1] += ' epochs'
    lines = [
        f'| Method | {" | ".join(heads)} | Seeds | s per step | MiB |',
        '| --- ' * (len(heads) + 4) + '|',
    ]
    for name, seeds in trained.items():
        cells = [_mean_and_range(at_epoch(seeds, epoch)) for epoch in epochs]
        cells.append(str(len(at_epoch(seeds, epochs[-1]))))
        cells += ['', '']
        if step := steps.get(name):
            cells[-2:] = f'{step["seconds"]:.3f}', f'{step["peak_mib"]:.1f}'
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _mean_and_range(values: Sequence[float]) -> str:
    """Mean, and if there are several values lowest and highest."""
    if not values:
        return ''
    text = f'{mean(values):.1f}'
    if len(values) > 1:
        text += f' ({min(values):.1f} to {max(values):.1f})'
    return text


def draw(
    path: Path, epochs: Sequence[str], trained: Trained, steps: Mapping
) -> None:
    """Draw AP at each epoch as points with their range, and seconds as bars.

    Args:
        path: Of the picture.
        epochs: When AP was measured.
        trained: AP of each training.
        steps: Seconds and memory of a step.
    """
    names = [n for n in trained if at_epoch(trained[n], epochs[-1])]
    names.sort(key=lambda n: mean(at_epoch(trained[n], epochs[-1])))
    if not names:
        return
    rows = range(len(names))
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(9, 1.2 + 0.36 * len(names)),
        width_ratios=(3, 1),
        sharey=True,
        layout='constrained',
    )
    colors = plt.get_cmap('Blues')
    for index, epoch in enumerate(epochs, 1):
        values = [at_epoch(trained[name], epoch) for name in names]
        color = colors(0.2 + 0.75 * index / len(epochs))
        means = [mean(v) if v else float('nan') for v in values]
        left.plot(means, rows, 'o', color=color, label=epoch)
        for row, value in enumerate(values):
            if len(value) > 1:
                left.plot([min(value), max(value)], [row, row], color=color)
    left.set_yticks(rows, names)
    left.set_xlim(left=0)
    left.set_xlabel('AP: mean of the seeds, line from lowest to highest')
    left.legend(title='epochs', frameon=False, loc='lower right')
    right.barh(
        rows,
        [steps.get(n, {}).get('seconds', 0) for n in names],
        color='#b8bec6',
    )
    right.set_xlim(left=0)
    right.set_xlabel('CPU seconds per step')
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='x', color='#e8ebee')
        axes.set_axisbelow(True)
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)
