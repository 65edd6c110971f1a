# Copyright (c) mmdetr authors. All rights reserved.
"""Plot how well the scores of each decoder layer rank its boxes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _arguments import (
    HelpFormatter,
    add_model_arguments,
    number_between,
    out_file,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        type=out_file,
        default='rank_quality.png',
        help='picture to write; the tables have the same name with .csv and '
        '_top-k.csv',
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        help='images of the test set (default: all)',
    )
    parser.add_argument(
        '--max-rank',
        type=positive_int,
        default=100,
        help='largest k of the precision at k',
    )
    parser.add_argument(
        '--iou-thr',
        type=number_between(0, 1),
        default=0.5,
        help='lowest IoU of a hit',
    )
    parser.add_argument('--title', help='title of the picture')
    add_model_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw and write what the command line asks for."""
    args = parse_args(argv)
    from project.apis import load_detector
    from project.evaluation.layer_ranking import measure, write_tables
    from project.preflight.config_files import read_config_file
    from project.visualization.rank_quality import check_format, draw

    path = Path(args.out)
    with user_errors(args.traceback):
        check_format(path)
        config = read_config_file(args.config, args.cfg_options)
        detector = load_detector(args.checkpoint, config, args.device)
        layers = measure(
            detector.model,
            detector.test_dataset(),
            args.num_images,
            max_rank=args.max_rank,
            iou_thr=args.iou_thr,
        )
    title = args.title or (
        f'{Path(args.config).stem}: {layers[0].num_images} images with objects'
    )
    tables = write_tables(layers, path.with_suffix(''))
    draw(layers, path, title)
    print(f'Rank quality: {path}, {", ".join(map(str, tables))}')


if __name__ == '__main__':
    main()
