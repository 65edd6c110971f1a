# Copyright (c) mmdetr authors. All rights reserved.
"""Train every method of this package under one budget, side by side.

All get the same small backbone, the same synthetic images, steps and learning
rate, and start from random weights; what else a method has comes from its
published config. Repeating the command goes on where it was interrupted. The
table (JSON, Markdown) and the picture are written anew after each training.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _arguments import (
    HelpFormatter,
    add_config_options,
    count,
    out_folder,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        metavar='NAME',
        help='names as in the table, or "list" to see them (default: all)',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=count,
        default=[0, 1, 2],
        help='one training of each method for each of them',
    )
    parser.add_argument(
        '--epochs',
        nargs='+',
        type=positive_int,
        default=[1, 2, 4, 8],
        help='when AP is measured; the last one ends the training',
    )
    parser.add_argument(
        '--images',
        nargs=2,
        type=positive_int,
        default=[320, 100],
        metavar=('TRAIN', 'VAL'),
        help='number of synthetic images',
    )
    parser.add_argument(
        '--repeats',
        type=positive_int,
        default=9,
        help='training steps of each method that are timed, in turn',
    )
    parser.add_argument(
        '--threads', type=positive_int, default=1, help='CPU threads of torch'
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        default='work_dirs/compare_methods',
        help='folder of data, trainings, table and picture',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the table."""
    args = parse_args(argv)
    import torch
    from _comparison import Comparison

    import project.engine  # noqa: F401  registers everything of the package

    torch.set_num_threads(args.threads)
    with user_errors(args.traceback):
        comparison = Comparison(Path(args.out), args)
        # What an interruption leaves is complete for the first seeds.
        for seed in args.seeds:
            for name in comparison.methods:
                comparison.train(name, seed)
            comparison.time_steps(args.repeats)
    print((Path(args.out) / 'table.md').read_text())


if __name__ == '__main__':
    main()
