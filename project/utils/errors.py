# Copyright (c) mmdetr authors. All rights reserved.
"""The one exception type that a user is meant to read."""

import difflib
from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any


class UserError(ValueError):
    """Input that cannot work, told in one sentence.

    The sentence names the file, key or value at fault and what was expected.
    The command line tools print it without a traceback and exit with status
    1; ``--traceback`` shows where it was raised.

    Args:
        message (str): The sentence. Of what a worker of a dataloader raised,
            to which torch adds the worker's traceback, the sentence is left.
    """

    is_everywhere = False
    """Whether all processes of a job raise it: the first one tells it."""

    def __init__(self, message: str = '') -> None:
        before, name, sentence = str(message).rpartition(
            f'{UserError.__module__}.UserError: '
        )
        is_of_worker = name and before.startswith('Caught ')
        super().__init__(sentence.strip() if is_of_worker else message)


def most_alike(
    name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.6
) -> list[str]:
    """Find what may have been meant by a name that does not exist.

    Args:
        name (str): The name.
        names (Iterable[str]): Those that exist.
        count (int): How many to return at the most. Defaults to 3.
        cutoff (float): How alike they have to be, from 0 to 1. Defaults to
            0.6.

    Returns:
        list[str]: The most alike first; upper and lower case are the same.
    """
    by_lower: dict[str, str] = {}
    for other in names:
        by_lower.setdefault(other.lower(), other)
    alike = difflib.get_close_matches(name.lower(), by_lower, count, cutoff)
    return [by_lower[found] for found in alike]


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """End a sentence about a name that does not exist.

    Args:
        name (str): The name.
        names (Iterable[str]): Those that exist.
        cutoff (float): How alike they have to be, from 0 to 1. Defaults to
            0.6.

    Returns:
        str: Such as ``': did you mean a or b?'``, a full stop if nothing is
        alike.
    """
    alike = most_alike(name, names, cutoff=cutoff)
    return f': did you mean {" or ".join(alike)}?' if alike else '.'


def some_of(names: Iterable[str], count: int = 3) -> str:
    """List the first of many names, and count the others.

    Args:
        names (Iterable[str]): All of them.
        count (int): How many are written. Defaults to 3.

    Returns:
        str: Such as ``a, b, c and 4 more``.
    """
    names = list(names)
    more = len(names) - count
    shown = ', '.join(names[:count])
    return f'{shown} and {more} more' if more > 0 else shown


def raise_everywhere(sentences: Iterable[str | None]) -> None:
    """Raise the first sentence of all processes, if there is one.

    Args:
        sentences (Iterable[str | None]): What each process found, as all of
            them have been told.

    Raises:
        UserError: The first one by rank.
    """
    for sentence in sentences:
        if sentence is not None:
            error = UserError(sentence)
            error.is_everywhere = True
            raise error


def check_takes(
    method: Callable, arguments: Iterable[Any], options: dict[str, Any]
) -> None:
    """Refuse a method of a user's class that does not take its arguments.

    Args:
        method (Callable): The bound method.
        arguments (Iterable): What it will be given by position.
        options (dict): What it will be given by keyword.

    Raises:
        UserError: If it cannot be called so.
    """
    try:
        signature(method).bind(*arguments, **options)
    except TypeError as error:
        given = ', '.join(sorted(options)) or 'none'
        raise UserError(
            f'{method.__qualname__} does not take what it is given ({error}): '
            'besides its positional arguments it gets the keywords '
            f'{given}; let it take **kwargs and pass them on'
        ) from error
