# Copyright (c) mmdetr authors. All rights reserved.
"""Try detectors in the browser: images, webcam and videos.

Needs gradio: pip install "mmdetr[app]".
"""

import argparse
from collections.abc import Sequence

from _cli import add_traceback, require_file, user_errors
from _types import device, positive_int


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='checkpoint file; the page lets you choose among several',
    )
    parser.add_argument(
        '--config', help='config file, if the checkpoints have none'
    )
    parser.add_argument(
        '--device',
        type=device,
        help='device of the models (default: an accelerator if there is one)',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 lets other machines in '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--port',
        type=positive_int,
        help='port (default: a free one from 7860)',
    )
    add_traceback(parser)
    args = parser.parse_args(argv)
    for checkpoint in args.checkpoints:
        require_file(checkpoint, 'checkpoint')
    if args.config:
        require_file(args.config, 'config')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Load the detectors and serve the page until Ctrl+C."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        from project.apis.app import (
            Playground,
            build_page,
            import_gradio,
            named,
        )
        from project.apis.detectors import load_detector

        import_gradio()
        detectors = {
            name: load_detector(checkpoint, args.config, args.device)
            for name, checkpoint in named(args.checkpoints).items()
        }
        page = build_page(Playground(detectors))
        page.launch(server_name=args.host, server_port=args.port)


if __name__ == '__main__':
    main()
