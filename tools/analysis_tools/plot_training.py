# Copyright (c) mmdetr authors. All rights reserved.
"""Plot loss and AP of a training, or compare the AP of several."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _arguments import out_file, user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='work_dir',
        help='work dir of a training; for several, their AP is compared',
    )
    parser.add_argument(
        '--out',
        type=out_file,
        help='picture to write (default: training.png in the first work dir)',
    )
    parser.add_argument(
        '--title',
        help='title of the plot (default: the names of the work dirs)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the curves of the work dirs that the command line names."""
    args = parse_args(argv)
    from project.visualization.rank_quality import check_format
    from project.visualization.training_curves import draw_trainings

    paths = [Path(work_dir) for work_dir in args.work_dirs]
    out = args.out or str(paths[0] / 'training.png')
    title = args.title or ', '.join(path.name for path in paths)
    with user_errors():
        check_format(Path(out))
        draw_trainings(paths, out, title)
    print(f'{"Loss and AP" if len(paths) == 1 else "AP"}: {out}')


if __name__ == '__main__':
    main()
