# Copyright (c) mmdetr authors. All rights reserved.
"""Measure how the cost of detectors grows.

One number varies at a time: queries (model.num_queries), gts (boxes of each
image), side (of square images) or layers (model.decoder.num_layers). All
configs run in turn, as benchmark.py runs them. The slope is that of a line
through the logarithms of size and time: 1 if twice the size takes twice the
time; the last one is that between the two largest sizes.
"""

import argparse
import copy
import gc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _arguments import (
    HelpFormatter,
    add_benchmark_arguments,
    count,
    out_folder,
    positive_int,
    user_errors,
)

SIZES = dict(
    queries=(300, 600, 900, 1800),
    gts=(1, 20, 100, 200, 300, 500),
    side=(320, 480, 640, 960, 1333),
    layers=(1, 2, 4, 8, 12),
)
WHOLE = 'whole'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    add_benchmark_arguments(parser, shape=(320, 320), repeats=3)
    parser.add_argument(
        '--vary',
        nargs='+',
        choices=tuple(SIZES),
        default=tuple(SIZES),
        help='what varies, one after the other',
    )
    parser.add_argument(
        '--sizes',
        type=positive_int,
        nargs='+',
        help='its sizes, at least two (default: four to six of its own)',
    )
    parser.add_argument(
        '--mode', choices=('inference', 'training'), default='training'
    )
    parser.add_argument('--batch-size', type=positive_int, default=1)
    parser.add_argument(
        '--gts', type=count, default=20, help='boxes of each image'
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='measure the CPU time of this process',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        required=True,
        help='folder for growth.json and a picture for all that varies',
    )
    args = parser.parse_args(argv)
    if args.sizes and len(args.sizes) < 2:
        parser.error('--sizes needs at least two')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the slopes and write files."""
    args = parse_args(argv)
    import torch
    from _benchmarking import Clock
    from mmengine.device import get_device

    torch.set_num_threads(args.threads)
    device = args.device or get_device()
    clock = Clock(device, args.cpu_time)
    results = []
    for axis in args.vary:
        sizes = sorted(set(args.sizes or SIZES[axis]))
        with user_errors(args.traceback):
            rows = measure_axis(axis, sizes, args, device, clock)
        for row in rows:
            print(
                f'{axis} | {row["part"]} | {row["config"]} | slope '
                f'{row["slope"]:.2f}, last {row["last_slope"]:.2f} | '
                + ' '.join(f'{x:.3g}' for x in row['seconds']),
                flush=True,
            )
        draw(Path(args.out) / f'growth_{axis}.svg', axis, rows)
        results += rows
    text = json.dumps(dict(settings=settings_of(args), rows=results), indent=1)
    (Path(args.out) / 'growth.json').write_text(text + '\n')


def settings_of(args: argparse.Namespace) -> dict:
    """What was asked for, as JSON holds it."""
    return {key: str(value) for key, value in vars(args).items()}


def measure_axis(
    axis: str,
    sizes: Sequence[int],
    args: argparse.Namespace,
    device: str,
    clock: Any,
) -> list[dict]:
    """Measure all configs at all sizes.

    Returns:
        One row for each config and part of its run: medians and slopes.
    """
    from _variants import build_variant, measure

    found: dict[tuple[str, str], list[float]] = {}
    for size in sizes:
        setting, changed = vary(axis, size, args)
        variants = {
            name: build_variant(name + setting, changed, device, clock)
            for name in args.configs
        }
        runs = measure(variants, args.repeats, device)
        del variants
        gc.collect()  # timed methods hold their models
        for name, of_config in runs.items():
            phases = [run['phases'] for run in of_config]
            for part, seconds in medians(phases).items():
                found.setdefault((name, part), []).append(seconds)
    return [
        dict(axis=axis, config=name, part=part, sizes=list(sizes))
        | dict(seconds=seconds)
        | slopes(sizes, seconds)
        for (name, part), seconds in found.items()
    ]


def vary(
    axis: str, size: int, args: argparse.Namespace
) -> tuple[str, argparse.Namespace]:
    """Give what to add to a config's name, and the changed options."""
    changed = copy.copy(args)
    if axis == 'gts':
        changed.gts = size
    elif axis == 'side':
        changed.shape = (size, size)
    key = dict(queries='num_queries', layers='decoder.num_layers').get(axis)
    return f'@model.{key}={size}' if key else '', changed


def medians(phases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians of the whole and of matching and losses, in seconds."""
    from statistics import median

    spans = {WHOLE: median(sum(run.values()) for run in phases)}
    part = 'matching and losses'
    if part in phases[0]:
        spans[part] = median(run[part] for run in phases)
    return spans


def slopes(sizes: Sequence[int], seconds: Sequence[float]) -> dict:
    """Slopes of time over size, both as logarithms."""
    import numpy as np

    x, y = np.log(sizes), np.log(seconds)
    return dict(
        slope=float(np.polyfit(x, y, 1)[0]),
        last_slope=float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    )


def draw(path: Path, axis: str, rows: Sequence[Mapping]) -> None:
    """Draw seconds over sizes, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use('Agg')
    mpl.rcParams['svg.fonttype'] = 'none'
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    configs = list(dict.fromkeys(row['config'] for row in rows))
    for row in rows:
        name = Path(row['config'].split('@')[0]).stem
        is_whole = row['part'] == WHOLE
        axes.loglog(
            row['sizes'],
            row['seconds'],
            marker='o',
            linestyle='-' if is_whole else ':',
            color=f'C{configs.index(row["config"])}',
            label=f'{name}{"" if is_whole else ", matching and losses"}: '
            f'slope {row["slope"]:.2f}',
        )
    ticks = rows[0]['sizes']
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlabel(axis)
    axes.set_ylabel('s')
    figure.legend(loc='outside lower center', fontsize='small')
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)


if __name__ == '__main__':
    main()
