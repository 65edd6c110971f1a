# Copyright (c) mmdetr authors. All rights reserved.
"""Follow a detector's queries through its decoder, in one HTML page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _arguments import (
    HelpFormatter,
    add_model_arguments,
    out_file,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', nargs='+', help='image files, a few')
    parser.add_argument(
        '--out', type=out_file, default='queries.html', help='page to write'
    )
    parser.add_argument(
        '--num-queries',
        type=positive_int,
        default=20,
        help='queries of an image, those with the highest scores',
    )
    add_model_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page that the command line asks for."""
    args = parse_args(argv)
    from project.apis import load_detector
    from project.evaluation.query_views import view_queries
    from project.preflight.config_files import read_config_file
    from project.visualization.query_page import render_queries

    with user_errors(args.traceback):
        config = read_config_file(args.config, args.cfg_options)
        detector = load_detector(args.checkpoint, config, args.device)
        views = {
            path: view_queries(
                detector.model, detector.prepare(path), args.num_queries
            )
            for path in args.images
        }
        name = Path(args.checkpoint).stem
        page = render_queries(views, detector.classes, f'Queries of {name}')
        Path(args.out).write_text(page, encoding='utf-8')
    print(f'Queries: {args.out}')


if __name__ == '__main__':
    main()
