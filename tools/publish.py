# Copyright (c) mmdetr authors. All rights reserved.
"""Write a checkpoint to hand on: weights, classes, preprocessing, config.

See docs/checkpoints.md. The optimizer and the logs are left out; averaged
weights (EMA) are taken where there are some.
"""

import argparse
import os
from collections.abc import Sequence

from _cli import add_traceback, detect_command, user_errors
from _types import out_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument(
        '--out',
        type=out_file,
        required=True,
        metavar='FILE',
        help='file to write, which must not exist',
    )
    parser.add_argument(
        '--config',
        help='config it was trained with (default: the one in the checkpoint '
        'or beside it)',
    )
    add_traceback(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Publish the checkpoint that the command line names."""
    args = parse_args(argv)
    from project.apis.publishing import publish

    with user_errors(args.traceback):
        meta = publish(args.checkpoint, args.out, args.config)
    classes = meta['dataset_meta']['classes']
    size = os.path.getsize(args.out) / 1e6
    print(f'{args.out}: {size:,.1f} MB, {len(classes)} classes')
    print(f'Detect with it: {detect_command(args.out)}')


if __name__ == '__main__':
    main()
