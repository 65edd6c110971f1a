# Copyright (c) mmdetr authors. All rights reserved.
"""Time training steps, inference or data of several detectors side by side.

They run alternately, A B C A B C, on the same random images and boxes, so that
ratios are reliable on a busy machine; the seconds are not. Weights are random.

A config may be followed by settings and by a backend of deformable attention
(docs/performance.md): CONFIG@model.encoder.num_cp=6@cpp. Training uses the
optimizer, gradient clipping and precision of the config. mmdet's own configs
(mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py) run as in mmdet unless a backend
is named.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from _arguments import (
    HelpFormatter,
    add_benchmark_arguments,
    count,
    out_folder,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add_benchmark_arguments(parser, shape=(800, 1333), repeats=9)
    parser.add_argument(
        '--mode',
        choices=('inference', 'training', 'data'),
        default='inference',
        help='network and post-processing, a whole training step, or what '
        'one worker does: images of the training set and their augmentation',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=1, help='images per step'
    )
    parser.add_argument(
        '--gts',
        type=count,
        default=7,
        help='boxes per image; COCO has 7 on average and 63 at most',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='measure the CPU time of this process instead of wall-clock '
        'time: for one thread on a busy machine',
    )
    parser.add_argument(
        '--memory',
        action='store_true',
        help='measure the peak memory of a run; takes another run on a CPU',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        help='folder for benchmark.json and benchmark.png',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    import torch
    from _benchmarking import Clock
    from _variants import build_variant, measure, summarise
    from mmengine.device import get_device

    torch.set_num_threads(args.threads)
    device = args.device or get_device()
    clock = Clock(device, args.cpu_time)
    with user_errors(args.traceback):
        variants = {
            f'{label}: {name}': build_variant(name, args, device, clock)
            for label, name in enumerate(args.configs, 1)
        }
        phases = measure(variants, args.repeats, device, args.memory)
    rows = summarise(phases, args.batch_size)
    settings = dict(
        mode=args.mode,
        image=f'{args.shape[0]}x{args.shape[1]}',
        batch=args.batch_size,
        boxes=args.gts,
        threads=args.threads,
        device=device,
        clock='CPU time' if args.cpu_time else 'wall clock',
        torch=torch.__version__,
    )
    print(', '.join(f'{key} {value}' for key, value in settings.items()))
    print_table(rows)
    if args.out:
        save(Path(args.out), settings, rows)


def print_table(rows: Sequence[dict]) -> None:
    """Print one line for each detector, then the shares of its phases."""
    print('median s | ratio to the first | images/s | peak MiB | config')
    for row in rows:
        peak = '' if row['peak_mib'] is None else f'{row["peak_mib"]:.0f}'
        print(
            f'{row["seconds"]:8.4f} | {row["ratio"]:18.3f} | '
            f'{row["images_per_second"]:8.2f} | {peak:>8} | {row["name"]}'
        )
    for row in rows:
        shares = ', '.join(
            f'{phase} {share:.1%}' for phase, share in row['shares'].items()
        )
        print(f'{row["name"].partition(":")[0]}: {shares}')


def save(folder: Path, settings: dict, rows: Sequence[dict]) -> None:
    """Write the table as JSON and the phases as bars."""
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    content = json.dumps(dict(settings=settings, rows=rows), indent=1)
    (folder / 'benchmark.json').write_text(content + '\n')
    figure, axes = plt.subplots(figsize=(9, 1 + 0.6 * len(rows)))
    names = [row['name'] for row in rows]
    left = [0.0] * len(rows)
    for phase in rows[0]['shares']:
        spans = [row['shares'][phase] * row['ratio'] for row in rows]
        axes.barh(names, spans, left=left, label=phase)
        left = [a + b for a, b in zip(left, spans, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel('time, that of the first is 1')
    axes.legend()
    figure.savefig(folder / 'benchmark.png', bbox_inches='tight')
    plt.close(figure)


if __name__ == '__main__':
    main()
