# Copyright (c) mmdetr authors. All rights reserved.
"""Draw training images: weak and strong ones side by side, with their boxes.

For pipelines with branches (data re-augmentation), which mmdet's
browse_dataset.py cannot show; for others one image each.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _arguments import (
    add_config_options,
    out_folder,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--out',
        type=out_folder,
        required=True,
        metavar='DIR',
        help='folder for the pictures, empty or new',
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        default=8,
        help='how many training images (default: 8)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the augmentation (default: 0)'
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the pictures that the command line asks for."""
    args = parse_args(argv)
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    from project.preflight import check_data
    from project.preflight.config_files import read_config_file
    from project.preflight.variables import resolve_config
    from project.visualization.branches import draw_training_images

    with user_errors(args.traceback):
        cfg = resolve_config(read_config_file(args.config, args.cfg_options))
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        check_data(cfg, ['train'])
        written = draw_training_images(
            DATASETS.build(cfg.train_dataloader.dataset),
            Path(args.out),
            args.num_images,
            args.seed,
        )
    print(f'{len(written)} pictures of training images in {args.out}')


if __name__ == '__main__':
    main()
