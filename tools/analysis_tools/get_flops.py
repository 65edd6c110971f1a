# Copyright (c) mmdetr authors. All rights reserved.
"""Count the parameters of detectors, and the operations for one image.

Operations are multiply-adds of convolutions, matrix products, attention,
deformable attention and RoIAlign at inference, which papers call GFLOPs.
Activations, norms, softmax, top-k and NMS are not counted.
"""

import argparse
from collections.abc import Sequence

from _arguments import (
    HelpFormatter,
    add_config_options,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument(
        'configs',
        nargs='+',
        help="config files, or mmdet's: mmdet::dino/...",
    )
    parser.add_argument(
        '--shape',
        type=positive_int,
        nargs=2,
        default=(800, 1333),
        metavar=('H', 'W'),
        help='size of the image in pixels',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Count and print a table."""
    args = parse_args(argv)
    from _complexity import count
    from _variants import read_config

    with user_errors(args.traceback):
        for path in args.configs:
            config = read_config(path, args.cfg_options)
            found = count(config, tuple(args.shape))
            print(f'\n{path}, one image of {args.shape[0]} x {args.shape[1]}')
            print(f'{"":20} {"parameters (M)":>15} {"operations (G)":>15}')
            for name, part in [*found.parts.items(), ('all', found)]:
                print(
                    f'{name:20} {part.parameters / 1e6:15.1f} '
                    f'{part.operations / 1e9:15.1f}'
                )


if __name__ == '__main__':
    main()
