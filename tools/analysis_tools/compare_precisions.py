# Copyright (c) mmdetr authors. All rights reserved.
"""Train every method in float32, bf16 and fp16, and compare the losses.

Methods are of the small size of compare_methods.py. A method's trainings start
from the same weights and see the same images; "rounded" is one in float32
whose weights differ at first by about 1e-6 of each, and shows how far two
trainings drift apart by rounding alone. Repeating the command goes on where it
was interrupted. precisions.json, table.md and precisions.svg are written anew
after each training.
"""

import argparse
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from _arguments import (
    HelpFormatter,
    add_config_options,
    out_folder,
    positive_int,
    user_errors,
)

PRECISIONS = ('fp32', 'rounded', 'bf16', 'fp16')
_COLORS = ('#1f2328', '#9aa2ab', '#0969da', '#cf222e')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument('annotations', help='COCO json of the images')
    parser.add_argument('images', help='their folder')
    parser.add_argument(
        '--methods',
        nargs='+',
        metavar='NAME',
        help='names as in the table (default: all)',
    )
    parser.add_argument(
        '--precisions', nargs='+', choices=PRECISIONS, default=PRECISIONS
    )
    parser.add_argument(
        '--iterations',
        type=positive_int,
        default=200,
        help='steps of each training',
    )
    parser.add_argument(
        '--threads', type=positive_int, default=1, help='CPU threads of torch'
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        default='work_dirs/compare_precisions',
        help='folder of tables, pictures and logs',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the table."""
    args = parse_args(argv)
    import torch
    from _comparison import chosen, hold_settings
    from _methods import METHODS

    import project.engine  # noqa: F401  registers everything of the package

    torch.set_num_threads(args.threads)
    out = Path(args.out)
    path = out / 'precisions.json'
    losses = json.loads(path.read_text()) if path.exists() else {}
    settings = dict(
        annotations=str(Path(args.annotations).resolve()),
        images=str(Path(args.images).resolve()),
        iterations=args.iterations,
        threads=args.threads,
        options=args.cfg_options or {},
    )
    with user_errors(args.traceback):
        hold_settings(out, settings)
        for name in chosen(args.methods):
            found = losses.setdefault(name, {})
            for precision in args.precisions:
                if precision in found:
                    continue
                found[precision] = train(METHODS[name], precision, args)
                path.write_text(json.dumps(losses) + '\n')
                (out / 'table.md').write_text(table(losses))
                draw(out / 'precisions.svg', losses)
    print(table(losses), end='')


def train(
    method: Any, precision: str, args: argparse.Namespace
) -> list[float]:
    """Train from the same weights on the same images.

    Args:
        method: One of ``_methods.METHODS``.
        precision: One of ``PRECISIONS``.
        args: The command line.

    Returns:
        The loss of each step.
    """
    from _cli import build_runner
    from _precisions import NoteLosses, RoundWeights, set_precision

    config = config_of(method, args)
    set_precision(config, precision)
    runner = build_runner(config)
    if precision == 'rounded':
        runner.register_hook(RoundWeights())
    noted = NoteLosses()
    runner.register_hook(noted)
    runner.train()
    return noted.losses


def config_of(method: Any, args: argparse.Namespace) -> Any:
    """Give a method the images and the number of steps."""
    from _methods import small_config

    from project.preflight.image_size import set_image_size

    config = small_config(method)
    config.merge_from_dict(args.cfg_options or {})
    set_image_size(config._cfg_dict, config.image_size)
    config.image_size = None  # which is read from the pipelines of a test
    config.classes = class_names(args.annotations)
    config.train_dataloader.batch_size = 2
    config.train_dataloader.dataset.update(
        data_root='',
        ann_file=str(Path(args.annotations).resolve()),
        data_prefix=dict(img=f'{Path(args.images).resolve()}/'),
    )
    for key in ('dataloader', 'cfg', 'evaluator'):
        config[f'val_{key}'] = config[f'test_{key}'] = None
    config.train_cfg = dict(by_epoch=False, max_iters=args.iterations)
    warm_up = config.param_scheduler[0]
    config.param_scheduler = [dict(warm_up, end=max(1, args.iterations // 4))]
    config.default_hooks.checkpoint = None
    config.launcher = 'none'
    config.experiment_name = config.visualizer.name = uuid.uuid4().hex
    config.work_dir = str(Path(args.out) / 'logs' / config.experiment_name)
    return config


@cache
def class_names(annotations: str) -> tuple[str, ...]:
    """Read the names of a COCO json, once for all trainings."""
    content = json.loads(Path(annotations).read_text())
    return tuple(category['name'] for category in content['categories'])


def table(losses: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Format how far each precision is from float32, in percent.

    Args:
        losses: Of each step, by method and precision.

    Returns:
        Markdown: the loss in float32 at the beginning and at the end, then
        the deviation of each other precision from its end.
    """
    others = [
        precision
        for precision in PRECISIONS[1:]
        if any(precision in found for found in losses.values())
    ]
    lines = [
        f'| method | first step | last tenth | {" | ".join(others)} |',
        '| --- ' * (len(others) + 3) + '|',
    ]
    for name, found in losses.items():
        if 'fp32' not in found:
            continue
        start, end = found['fp32'][0], ending(found['fp32'])
        cells = [f'{start:.1f}', f'{end:.1f}']
        for other in others:
            cells.append('')
            if other in found:
                deviation = ending(found[other]) / end - 1
                cells[-1] = f'{deviation:+.1%}'
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def ending(losses: Sequence[float]) -> float:
    """Mean loss of the last tenth of the steps."""
    return mean(losses[-math.ceil(len(losses) / 10) :])


def draw(
    path: Path, losses: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Draw the losses of each method, means of ten steps."""
    import matplotlib as mpl

    mpl.use('Agg')
    mpl.rcParams['svg.fonttype'] = 'none'
    from matplotlib import pyplot as plt

    num_rows = math.ceil(len(losses) / 4)
    figure, axes = plt.subplots(
        num_rows,
        4,
        figsize=(10, 1.9 * num_rows + 0.4),
        squeeze=False,
        layout='constrained',
    )
    for cell in axes.flat[len(losses) :]:
        cell.set_axis_off()
    for cell, (name, found) in zip(axes.flat, losses.items(), strict=False):
        for precision, color in zip(PRECISIONS, _COLORS, strict=True):
            means = [
                mean(found[precision][start : start + 10])
                for start in range(0, len(found.get(precision, ())), 10)
            ]
            steps = [10 * i + 5 for i in range(len(means))]
            cell.plot(steps, means, color=color, label=precision, linewidth=1)
        cell.set_title(name, fontsize=8)
        cell.tick_params(labelsize=7)
        cell.spines[['top', 'right']].set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)


if __name__ == '__main__':
    main()
