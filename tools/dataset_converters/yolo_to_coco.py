# Copyright (c) mmdetr authors. All rights reserved.
"""Convert the annotations of a dataset in YOLO format to COCO.

The images stay where they are. For each split
<root>/annotations/<split>.json is written, with file names relative to
<root>/images/<split>/ or <root>/<split>/images/.
"""

import argparse
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
    from project.datasets.yolo import convert, image_folder, read_names

    with user_errors():
        for split in args.splits:
            out = args.root / 'annotations' / f'{split}.json'
            counts = convert(args.root, split, out)
            folder = image_folder(args.root, split).relative_to(args.root)
            print(
                f'{out}: {counts["images"]:,} images, '
                f'{counts["annotations"]:,} boxes, {counts["categories"]} '
                f'classes; its data_prefix is dict(img={str(folder)!r})'
            )
        names = tuple(read_names(args.root))
        print(f'In the config: classes = {names}')


if __name__ == '__main__':
    main()
