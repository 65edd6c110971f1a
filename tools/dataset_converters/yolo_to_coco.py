# Copyright (c) mmdetr authors. All rights reserved.
"""Convert the annotations of a dataset in YOLO format to COCO.

The images stay where they are. For each split
<root>/annotations/<split>.json is written. The images are those that data.yaml
names, else those in <root>/images/<split>/ or <root>/<split>/images/.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='folder with data.yaml')
    parser.add_argument(
        '--splits',
        nargs='+',
        default=['train', 'val'],
        metavar='NAME',
        help='splits to convert (default: train val)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert what the command line asks for and say so."""
    args = parse_args(argv)
    from project.datasets.yolo import convert, find_images, read_names
    from project.utils.errors import UserError

    with user_errors():
        for split in args.splits:
            out = args.root / 'annotations' / f'{split}.json'
            images = find_images(args.root, [split])
            if images is None:
                raise UserError(
                    f'Neither {args.root}/images/{split} nor '
                    f'{args.root}/{split}/images exists, and data.yaml names '
                    f'no {split} images that do.'
                )
            counts = convert(args.root, images, out)
            folder = os.path.relpath(images.folder, args.root)
            print(
                f'{out}: {counts["images"]:,} images, '
                f'{counts["annotations"]:,} boxes, {counts["categories"]} '
                f'classes; its data_prefix is dict(img={folder!r})'
            )
        names = tuple(read_names(args.root))
        print(f'In the config: classes = {names}')


if __name__ == '__main__':
    main()
