# Copyright (c) mmdetr authors. All rights reserved.
"""Test a detector and report what it gets wrong, as one HTML page."""

import argparse
from collections.abc import Sequence

from _cli import (
    add_shared_arguments,
    build_runner,
    join_job,
    load_config,
    require_file,
    user_errors,
)
from _types import out_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--against',
        metavar='CHECKPOINT2',
        help='checkpoint of the same config to compare with',
    )
    parser.add_argument(
        '--out',
        type=out_file,
        default='report.html',
        help='page to write (default: report.html)',
    )
    add_shared_arguments(parser)
    args = parser.parse_args(argv)
    join_job(args)
    require_file(args.config, 'config')
    for checkpoint in (args.checkpoint, args.against):
        if checkpoint:
            require_file(checkpoint, 'checkpoint')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Test and report."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        cfg = load_config(args)
        from project.apis.report import keep_evaluation, write_report

        cfg.load_from, cfg.resume = args.checkpoint, False
        keep_evaluation(cfg)
        write_report(build_runner(cfg), args.out, args.against)


if __name__ == '__main__':
    main()
