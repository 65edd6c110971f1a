# Copyright (c) mmdetr authors. All rights reserved.
"""Convert a checkpoint of an official repository; see docs/checkpoints.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import add_traceback, user_errors
from _types import positive_int

if TYPE_CHECKING:
    from project.checkpoints.conversion import ConvertedCheckpoint


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint of an official repository or of '
        'detrex for the configs of this project. A checkpoint that does not '
        'fit exactly is refused, and nothing is written. With --num-classes '
        'or --num-queries, checkpoints of this project are accepted as well.'
    )
    parser.add_argument('source', metavar='SRC', help='the checkpoint')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--config',
        help='config whose model the weights must fit (default: the shipped '
        'ones are tried)',
    )
    parser.add_argument(
        '--num-classes',
        type=positive_int,
        metavar='N',
        help='prepare for fine-tuning on N classes: keep the weights that do '
        'not depend on the classes and re-initialize the others',
    )
    parser.add_argument(
        '--num-queries',
        type=positive_int,
        metavar='N',
        help='keep the queries of the N best proposals, for methods that '
        'learn queries by rank',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace DST if it exists'
    )
    add_traceback(parser)
    return parser.parse_args(argv)


def report(converted: 'ConvertedCheckpoint', configs: Sequence[str]) -> str:
    """Say what was done, one line each."""
    from project.checkpoints.class_tensors import NUM_COCO_IDS

    layout, classes = converted.layout, str(converted.source_classes)
    if converted.source_classes == NUM_COCO_IDS:
        classes += ' category ids of COCO -> its 80 classes'
    lines = [
        f'layout     {layout.title}',
        f'model      {converted.architecture}',
        f'tensors    {len(converted.origins)} mapped, '
        f'{len(converted.aliases)} second names dropped, '
        f'{len(converted.filled)} buffers filled in',
        f'classes    {classes}',
        *(f'fits       {config}' for config in configs),
    ]
    if layout.max_per_img is not None:
        lines.append(
            f'detections {layout.max_per_img} per image for the published AP '
            '(model.test_cfg.max_per_img)'
        )
    if converted.num_queries:
        before, now = converted.num_queries
        lines.append(
            f'queries    the first {now} of {before} ranks '
            f'(model.num_queries={now})'
        )
    if converted.renewed:
        lines.append(f'for fine-tuning with {converted.num_classes} classes')
        lines += [f'  {change}' for change in converted.renewed]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the checkpoint that the command line names."""
    args = parse_args(argv)
    from project.checkpoints.converter import convert_file

    with user_errors(args.traceback):
        converted, configs = convert_file(
            args.source,
            args.target,
            config=args.config,
            num_classes=args.num_classes,
            num_queries=args.num_queries,
            overwrite=args.overwrite,
        )
    print(report(converted, configs))
    print(f'written    {args.target}')


if __name__ == '__main__':
    main()
