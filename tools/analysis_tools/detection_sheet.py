# Copyright (c) mmdetr authors. All rights reserved.
"""Draw a sheet of test images: ground truth next to detections."""

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
        default='detections.png',
        help='picture to write',
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        default=12,
        help='how many test images',
    )
    parser.add_argument(
        '--score-thr',
        type=number_between(0, 1),
        help='lowest score drawn; by default the one at which the F1 score '
        'over the test set, at IoU 0.5, is highest',
    )
    parser.add_argument('--title', help='title of the sheet')
    add_model_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the sheet that the command line asks for."""
    args = parse_args(argv)
    from project.apis import load_detector
    from project.preflight.config_files import read_config_file
    from project.visualization.detection_sheet import draw_detections
    from project.visualization.rank_quality import check_format

    with user_errors(args.traceback):
        check_format(Path(args.out))
        config = read_config_file(args.config, args.cfg_options)
        detector = load_detector(args.checkpoint, config, args.device)
        draw_detections(
            detector.model,
            detector.test_dataset(),
            args.out,
            num_images=args.num_images,
            score_thr=args.score_thr,
            title=args.title or Path(args.config).stem,
        )
    print(f'Detections beside ground truth: {args.out}')


if __name__ == '__main__':
    main()
