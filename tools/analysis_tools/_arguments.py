# Copyright (c) mmdetr authors. All rights reserved.
"""Options that the analysis tools have in common.

Nothing heavy is imported at the top, so that ``--help`` and mistakes on the
command line are answered at once.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import add_config_options, user_errors
from _types import (
    count,
    device,
    number_between,
    out_file,
    out_folder,
    override,
    positive_int,
)

__all__ = [
    'HelpFormatter',
    'add_benchmark_arguments',
    'add_config_options',
    'add_model_arguments',
    'count',
    'device',
    'number_between',
    'out_file',
    'out_folder',
    'override',
    'positive_int',
    'user_errors',
]


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one, but no flag's."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that runs a model.

    Args:
        parser (argparse.ArgumentParser): Gets ``--device`` and the options
            of configs.
    """
    parser.add_argument(
        '--device',
        type=device,
        help='where models run (default: an accelerator if there is one)',
    )
    add_config_options(parser)


def add_benchmark_arguments(
    parser: argparse.ArgumentParser, shape: tuple[int, int], repeats: int
) -> None:
    """Add the options of a benchmark of several detectors.

    Args:
        parser: Gets the options.
        shape: Default size (h, w) of the images.
        repeats: How often each detector runs by default.
    """
    parser.add_argument(
        'configs',
        nargs='+',
        help='config files; ratios are to the first, so the first once more '
        'shows the noise',
    )
    parser.add_argument(
        '--shape',
        type=positive_int,
        nargs=2,
        default=shape,
        metavar=('H', 'W'),
        help='size of the images in pixels',
    )
    parser.add_argument(
        '--repeats',
        type=positive_int,
        default=repeats,
        help='runs of each detector',
    )
    parser.add_argument(
        '--threads',
        type=positive_int,
        default=1,
        help='CPU threads of torch',
    )
    add_model_arguments(parser)
