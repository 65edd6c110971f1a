# Copyright (c) mmdetr authors. All rights reserved.
"""Export a trained detector to ONNX, OpenVINO or torch.export.

Normalisation and post-processing are in the file. It takes `images` (n x 3 x
h x w, float32, RGB from 0 to 255) and gives `boxes` (n x k x 4, x1 y1 x2 y2 in
pixels of the input), `scores` (n x k, best first) and `labels` (n x k, int64).
It is kept only if it detects the same as PyTorch: docs/deployment.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import add_config_options, require_file, user_errors
from _types import out_file, positive_int


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--format',
        choices=('onnx', 'openvino', 'torch-export'),
        default='onnx',
        help='what to write (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=out_file,
        required=True,
        metavar='FILE',
        help="the file; OpenVINO's ends in .xml",
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='take any number of images of any size; without it, one image '
        'of --shape',
    )
    parser.add_argument(
        '--half', action='store_true', help='store the weights as float16'
    )
    parser.add_argument(
        '--shape',
        type=positive_int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the images (default: that of a landscape image in the '
        'test pipeline)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an existing FILE'
    )
    add_config_options(parser)
    args = parser.parse_args(argv)
    require_file(args.config, 'config')
    require_file(args.checkpoint, 'checkpoint')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Export, and say how far the file is from PyTorch."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        from project.apis import load_detector
        from project.apis.export.exporting import Request, export
        from project.preflight.config_files import read_config_file

        request = Request(
            kind=args.format,
            out=Path(args.out),
            dynamic=args.dynamic,
            half=args.half,
            shape=args.shape and tuple(args.shape),
            overwrite=args.overwrite,
        )
        request.check()
        config = read_config_file(args.config, args.cfg_options)
        detector = load_detector(args.checkpoint, config, 'cpu')
        difference, origin = export(detector, request)
    print(f'Largest difference from PyTorch on {origin}: {difference}')
    print(f'Written: {args.out}')


if __name__ == '__main__':
    main()
