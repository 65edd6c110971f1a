# Copyright (c) mmdetr authors. All rights reserved.
"""Detect objects in images, videos, folders, cameras or streams.

The config is read from the checkpoint or from its work dir. The results are
written to a folder: pictures and annotated videos, COCO's JSON, CSV or
Parquet, and JSON lines. Repeating an interrupted command resumes it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from _cli import (
    add_local_rank,
    add_traceback,
    join_job,
    require_file,
    user_errors,
)
from _types import count, device, number_between, out_folder, positive_int

if TYPE_CHECKING:
    from project.apis import Detector
    from project.apis.bulk.run import Options
    from project.apis.bulk.whole import Summary

FORMATS = ('pictures', 'csv', 'coco', 'parquet')
SOME_BROKEN = 3
"""Exit status where something could not be read, and all else was done."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Exit status: 0; 1 after an error; 2 for wrong usage; '
        f'{SOME_BROKEN} if some images\ncould not be read, which are named '
        'and counted, and all others were processed.',
    )
    add_what(parser)
    add_how(parser)
    args = parser.parse_args(argv)
    if '-' in args.sources and (len(args.sources) > 1 or args.launcher):
        parser.error('- stands alone, and for one process')
    join_job(args)
    require_file(args.checkpoint, 'checkpoint')
    if args.config:
        require_file(args.config, 'config')
    return args


def add_what(parser: argparse.ArgumentParser) -> None:
    """Add what to detect, in what, and where the results go."""
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'sources',
        nargs='+',
        metavar='SOURCE',
        help='image, video, folder (searched recursively), pattern '
        "('a/*.jpg'), .txt file with one path per line, number of a camera, "
        'URL of a stream; or only -: reads paths from standard input and '
        'writes a line of JSON for each to standard output',
    )
    parser.add_argument(
        '--config', help='config file, if the checkpoint has none'
    )
    parser.add_argument(
        '--score-thr',
        type=number_between(0, 1),
        default=0.3,
        help='lowest score that is kept (default: %(default)s)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='keep only these classes (default: all)',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        default='detections',
        metavar='FOLDER',
        help='folder for the results (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='remove the results of another command from --out first',
    )


def add_how(parser: argparse.ArgumentParser) -> None:
    """Add the options that do not change the detections."""
    parser.add_argument(
        '--write',
        nargs='+',
        choices=FORMATS,
        default=FORMATS[:3],
        metavar='FORMAT',
        help=f'what to write: {", ".join(FORMATS)} (default: all but the '
        'last)',
    )
    parser.add_argument(
        '--device',
        type=device,
        help='device of the model (default: an accelerator if there is one)',
    )
    parser.add_argument(
        '--batch-size',
        type=positive_int,
        default=1,
        help='images per forward pass (default: %(default)s)',
    )
    parser.add_argument(
        '--workers',
        type=count,
        help='processes that read images (default: up to 4, or none for a '
        'few images)',
    )
    parser.add_argument(
        '--shard-size',
        type=positive_int,
        default=100,
        help='images per result file, the most that a killed process loses '
        '(default: %(default)s)',
    )
    add_traceback(parser)
    parser.add_argument(
        '--launcher',
        choices=['pytorch'],
        help=argparse.SUPPRESS,
    )
    add_local_rank(parser)


def load(args: argparse.Namespace) -> tuple['Detector', 'Options']:
    """Load the detector and check the options about it."""
    from project.apis import load_detector
    from project.apis.bulk.run import Options
    from project.apis.bulk.whole import labels_of

    detector = load_detector(
        args.checkpoint, args.config, args.device or own_device(args)
    )
    return detector, Options(
        score_thr=args.score_thr,
        labels=args.classes and labels_of(args.classes, detector.classes),
        batch_size=args.batch_size,
        num_workers=args.workers,
        draw='pictures' in args.write,
    )


def own_device(args: argparse.Namespace) -> str | None:
    """Name the accelerator of this process of several."""
    import torch

    if not args.launcher or not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator()
    return f'{kind}:{os.environ["LOCAL_RANK"]}'


def detect_from_input(args: argparse.Namespace) -> int:
    """Read paths from standard input, write numbers to standard output.

    Returns:
        int: The exit status.
    """
    from project.apis.bulk.run import numbers_of_paths

    detector, options = load(args)
    is_broken = False
    paths = (line.rstrip('\r\n') for line in sys.stdin)
    for line, is_whole in numbers_of_paths(detector, paths, options):
        print(line, flush=True)
        is_broken |= not is_whole
    return SOME_BROKEN if is_broken else 0


def detect_into_folder(args: argparse.Namespace) -> int:
    """Detect in all sources, as one process of a job.

    Returns:
        int: The exit status.
    """
    from project.apis.bulk.distributed import Processes
    from project.apis.bulk.exports import check_formats
    from project.apis.bulk.sources import check_sources
    from project.apis.bulk.whole import Request, detect_job

    check_formats(args.write)
    check_sources(args.sources)
    processes = Processes.join(args.launcher is not None)
    detector, options = load(args)
    request = Request(
        sources=args.sources,
        out=args.out,
        formats=args.write,
        description=describe(args),
        portion_size=args.shard_size,
        overwrite=args.overwrite,
    )
    summary = detect_job(detector, request, options, processes)
    return 0 if summary is None else report(summary, args)


def describe(args: argparse.Namespace) -> dict[str, Any]:
    """Describe what a resumed command must have in common."""
    path = os.path.abspath(args.checkpoint)
    is_file = os.path.isfile(path)
    return dict(
        checkpoint=path if is_file else args.checkpoint,
        changed=int(os.path.getmtime(path)) if is_file else None,
        config=args.config and os.path.abspath(args.config),
        sources=[
            os.path.abspath(x) if os.path.exists(x) else x
            for x in args.sources
        ],
        score_thr=args.score_thr,
        classes=args.classes,
        pictures='pictures' in args.write,
    )


def report(summary: 'Summary', args: argparse.Namespace) -> int:
    """Report the results of each source and where they are.

    Returns:
        int: The exit status.
    """
    from project.utils.errors import some_of

    rows = (args.sources, summary.images, summary.detections, summary.broken)
    for source, images, detections, broken in zip(*rows, strict=True):
        told = f'; could not be read: {len(broken)}' if broken else ''
        print(f'{source}: images {images}, detections {detections}{told}')
        if broken:
            print(f'  {some_of(broken, 5)}')
    written = [*map(str, summary.files), f'{args.out}/shards']
    pictures = f'{args.out}/pictures'
    if os.path.isdir(pictures):
        written.insert(0, pictures)
    print(f'Written: {", ".join(written)}')
    return SOME_BROKEN if any(summary.broken) else 0


def main(argv: Sequence[str] | None = None) -> None:
    """Detect."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        if args.sources == ['-']:
            status = detect_from_input(args)
        else:
            status = detect_into_folder(args)
    sys.exit(status)


if __name__ == '__main__':
    main()
