# Copyright (c) mmdetr authors. All rights reserved.
"""Make the synthetic shapes dataset; see project/datasets/shapes.py."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Make the synthetic shapes dataset in COCO format: '
        'OUT/annotations/{train,val}.json and the images in OUT/{train,val}/. '
        'The same arguments always give the same bytes.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', metavar='OUT', help='folder of the dataset')
    parser.add_argument(
        '--train',
        type=int,
        default=1000,
        metavar='N',
        help='number of training images',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=200,
        metavar='N',
        help='number of validation images',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=160,
        metavar='PIXELS',
        help='longest side of every image',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the set')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the dataset that the command line asks for and say so."""
    args = parse_args(argv)
    from project.datasets.shapes import ShapesSpec, make_shapes

    with user_errors():
        spec = ShapesSpec(args.train, args.val, args.size, args.seed)
        made = make_shapes(args.out, spec)
    print(
        f'{args.out}: {spec.train} training and {spec.val} validation images '
        f'{"written" if made else "are there already"}'
    )


if __name__ == '__main__':
    main()
