# Copyright (c) mmdetr authors. All rights reserved.
"""Print a shipped config without its bases, as a start for your own.

For example ``h-detr_r50_8xb2-12e_coco > my_config.py``.
"""

import argparse
from collections.abc import Sequence

from _cli import add_config_options, user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'name',
        nargs='?',
        help='name of a shipped config, with or without its folder '
        '(default: list all names)',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the config, or the names of all."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        from project.utils.paths import config_names, find_config

        if args.name is None:
            print('\n'.join(config_names()))
            return
        path = find_config(args.name)
        from project.preflight.config_files import read_config_file

        config = read_config_file(path, args.cfg_options)
        print(config.pretty_text, end='')


if __name__ == '__main__':
    main()
