# Copyright (c) mmdetr authors. All rights reserved.
"""Start a method of your own: write a folder with a detector that works.

It holds a detector, a head, a loss, a config and a test, outside of this
repository; see docs/new_method.md.
"""

import argparse
import keyword
import re
import shlex
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from _cli import user_errors

TEMPLATE = Path(__file__).resolve().parent / 'method_template'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'name',
        type=package_name,
        metavar='NAME',
        help='of the method in small letters, such as size-detr',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FOLDER',
        help='new folder to write (default: NAME)',
    )
    args = parser.parse_args(argv)
    args.out = args.out or Path(args.name)
    return args


def package_name(text: str) -> str:
    """Read the name of a method, which becomes that of a package."""
    name = text.replace('-', '_')
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise argparse.ArgumentTypeError(
            'expected small letters, digits, - and _, a letter first, got '
            f'{text!r}'
        )
    if keyword.iskeyword(name):
        raise argparse.ArgumentTypeError(f'{name} is a word of Python')
    spec = find_spec(name)
    if spec is not None and spec.origin is not None:
        raise argparse.ArgumentTypeError(
            f'{name} is the name of a package that is installed'
        )
    return name


def class_name(name: str) -> str:
    """Turn size_detr into SizeDETR."""
    words = [
        word.upper() if word == 'detr' else word.capitalize()
        for word in name.split('_')
    ]
    return ''.join(words)


def write_method(name: str, folder: Path) -> None:
    """Copy the template under another name.

    Args:
        name: Of the package.
        folder: Is created.

    Raises:
        UserError: If the folder exists or cannot be made, or there are
            classes of these names already.
    """
    from project.utils.errors import UserError

    if folder.exists():
        raise UserError(f'{folder} exists; name another folder with --out.')
    _check_classes(name)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f'The folder {folder} cannot be made: {error.strerror}.'
        ) from error
    new_names = {
        'my_method': name,
        'my-method': name.replace('_', '-'),
        'MyMethod': class_name(name),
    }

    def renamed(text: str) -> str:
        for old, new in new_names.items():
            text = text.replace(old, new)
        return text

    for source in sorted(TEMPLATE.rglob('*')):
        if source.is_dir() or source.suffix not in ('.py', '.md'):
            continue
        target = folder / renamed(str(source.relative_to(TEMPLATE)))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        target.write_text(renamed(source.read_text()))


def _check_classes(name: str) -> None:
    """Raise if a class of the method would have the name of another one."""
    from mmdet.registry import MODELS

    import project.engine  # noqa: F401  registers everything of the package
    from project.utils.errors import UserError

    for part in ('', 'Head', 'Loss'):
        wanted = f'{class_name(name)}{part}'
        there = MODELS.get(wanted)
        if there is not None:
            raise UserError(
                f'A method {name} would have the class {wanted}, which '
                f'{there.__module__} has; choose another name.'
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder and tell what to do with it."""
    args = parse_args(argv)
    with user_errors():
        write_method(args.name, args.out)
    dashed = args.name.replace('_', '-')
    print(
        f'{args.out} is written. Its test and a training:\n'
        f'  cd {shlex.quote(str(args.out))}\n'
        '  python -m pytest\n'
        '  PYTHONPATH=. python -m project train '
        f'configs/{dashed}_r50_8xb2-12e_coco.py'
    )


if __name__ == '__main__':
    main()
