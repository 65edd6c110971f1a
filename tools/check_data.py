# Copyright (c) mmdetr authors. All rights reserved.
"""Check the data of a config, as training does before it starts.

Prints the number of images and boxes by class and size, what would be left out
and why, broken images, and images that are in both training and validation.
The exit status is 1 if training would be refused.
"""

import argparse
import sys
from collections.abc import Sequence

from _cli import add_config_options, require_file, user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    add_config_options(parser)
    args = parser.parse_args(argv)
    require_file(args.config, 'config')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report; exit with 1 if the data would be refused."""
    args = parse_args(argv)
    from mmengine.registry import init_default_scope
    from rich.console import Console

    from project.preflight.config_files import read_config_file
    from project.preflight.doctor import examine
    from project.preflight.variables import resolve_config

    with user_errors(args.traceback):
        cfg = resolve_config(read_config_file(args.config, args.cfg_options))
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        console = Console()
        if not console.is_terminal:
            console = Console(width=120)
        is_fine = examine(cfg, console)
    sys.exit(0 if is_fine else 1)


if __name__ == '__main__':
    main()
