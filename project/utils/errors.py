# Copyright (c) mmdetr authors. All rights reserved.
"""The exception for mistakes of the user, and helpers for its messages."""

import difflib
from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any


class UserError(ValueError):
    """Invalid input, explained in one sentence.

    The sentence names the file, key or value at fault and what was expected.
    The command line tools print it without a traceback and exit with status
    1; ``--traceback`` shows where it was raised.

    Args:
        message (str): The sentence. The traceback that torch adds to errors
            of dataloader workers is removed.
    """

    is_everywhere = False
    """Whether all processes of a job raise it, so that rank 0 prints it."""

    def __init__(self, message: str = '') -> None:
        before, name, sentence = str(message).rpartition(
            f'{UserError.__module__}.UserError: '
        )
        is_of_worker = name and before.startswith('Caught ')
        super().__init__(sentence.strip() if is_of_worker else message)


def most_alike(
    name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.6
) -> list[str]:
    """Find the names most similar to one that does not exist.

    Args:
        name (str): The name.
        names (Iterable[str]): Existing names.
        count (int): Largest number of results. Defaults to 3.
        cutoff (float): Lowest similarity, from 0 to 1. Defaults to 0.6.

    Returns:
        list[str]: The most similar first; case is ignored.
    """
    by_lower: dict[str, str] = {}
    for other in names:
        by_lower.setdefault(other.lower(), other)
    alike = difflib.get_close_matches(name.lower(), by_lower, count, cutoff)
    return [by_lower[found] for found in alike]


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """End of a sentence about a name that does not exist.

    The arguments are those of :func:`most_alike`.

    Returns:
        str: Such as ``': did you mean a or b?'``; a full stop if no name is
        similar.
    """
    alike = most_alike(name, names, cutoff=cutoff)
    return f': did you mean {" or ".join(alike)}?' if alike else '.'


def some_of(names: Iterable[str], count: int = 3) -> str:
    """List the first of many names, with the number of the others.

    Args:
        names (Iterable[str]): All names.
        count (int): Number of listed names. Defaults to 3.

    Returns:
        str: Such as ``a, b, c and 4 more``.
    """
    names = list(names)
    more = len(names) - count
    shown = ', '.join(names[:count])
    return f'{shown} and {more} more' if more > 0 else shown


def raise_everywhere(sentences: Iterable[str | None]) -> None:
    """Raise the first error of all processes, on each of them.

    Args:
        sentences (Iterable[str | None]): The error of each process, gathered
            by all.

    Raises:
        UserError: That of the lowest rank, if any.
    """
    for sentence in sentences:
        if sentence is not None:
            error = UserError(sentence)
            error.is_everywhere = True
            raise error


def check_takes(
    method: Callable, arguments: Iterable[Any], options: dict[str, Any]
) -> None:
    """Raise unless a method of a user's class accepts its arguments.

    Args:
        method (Callable): The bound method.
        arguments (Iterable): Positional arguments.
        options (dict): Keyword arguments.
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
