# Copyright (c) mmdetr authors. All rights reserved.
"""Types for ``argparse``, which report mistakes at once and in one line.

Nothing heavy is imported.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.config import DictAction


def positive_int(text: str) -> int:
    """Read a number of a command line.

    Args:
        text (str): What was typed.

    Returns:
        int: The number.

    Raises:
        ArgumentTypeError: If it is no whole number above 0.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
    return int(text)


def count(text: str) -> int:
    """Read a number of a command line that may be 0.

    Args:
        text (str): What was typed.

    Returns:
        int: The number.

    Raises:
        ArgumentTypeError: If it is no whole number from 0 on.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 on')
    return int(text)


def number_between(low: float, high: float) -> Callable[[str], float]:
    """Make a type of numbers in a range.

    Args:
        low (float): The smallest.
        high (float): The largest.

    Returns:
        Callable: Reads such a number; raises ``ArgumentTypeError`` for what
        is none.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float('nan')
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f'{text!r} is no number from {low:g} to {high:g}'
            )
        return value

    return read


def override(text: str) -> str:
    """Check a setting of ``--cfg-options``, which ``DictAction`` then reads.

    Args:
        text (str): ``KEY=VALUE``.

    Returns:
        str: The same.

    Raises:
        ArgumentTypeError: If there is no key, or brackets do not match.
    """
    key, equals, value = text.partition('=')
    if not equals or not all(key.split('.')):
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    try:
        DictAction._parse_iterable(value)
    except Exception:
        raise argparse.ArgumentTypeError(
            f'the value of {key} cannot be read: {value!r}; lists are '
            'written as "[a,b]" or a,b'
        ) from None
    return text


def device(text: str) -> str:
    """Read the name of a device.

    Args:
        text (str): What was typed, such as ``cuda:1``.

    Returns:
        str: The same.

    Raises:
        ArgumentTypeError: If torch knows no such name, or this machine has
            no such device.
    """
    if text != 'cpu':
        from project.utils.accelerators import check_device
        from project.utils.errors import UserError

        try:
            check_device(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(error) from error
    return text


def out_file(text: str) -> str:
    """Check that a file can be written, before the work that it is to hold.

    The folder is made if it is not there.

    Args:
        text (str): A path.

    Returns:
        str: The same.

    Raises:
        ArgumentTypeError: If it is a folder, or cannot be written.
    """
    path = Path(text)
    try:
        if path.is_dir():
            raise argparse.ArgumentTypeError(
                f'{text} is a folder; name a file'
            )
        _check_folder(path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, 'it is not writable')
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f'{text} cannot be written: {error.strerror}'
        ) from error
    return text


def out_folder(text: str) -> str:
    """Check that files can be written into a folder, which is made.

    Args:
        text (str): A path.

    Returns:
        str: The same.

    Raises:
        ArgumentTypeError: If they cannot.
    """
    try:
        _check_folder(Path(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f'nothing can be written to the folder {text}: {error.strerror}'
        ) from error
    return text


@contextlib.contextmanager
def argument_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Tell as a mistake on the command line what is checked after parsing.

    Args:
        parser (argparse.ArgumentParser): Read the command line.
    """
    try:
        yield
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))


def _check_folder(folder: Path) -> None:
    """Make a folder and a nameless file in it; OSError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(error.errno, 'a file is in the way') from error
    with tempfile.TemporaryFile(dir=folder):
        pass
