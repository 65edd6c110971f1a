# Copyright (c) mmdetr authors. All rights reserved.
"""The one exception type that a user is meant to read."""

import difflib
from collections.abc import Callable, Iterable
from inspect import signature
from numbers import Real
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


def check_keys(
    name: str, settings: Iterable[str], known: Iterable[str]
) -> None:
    """Refuse a key that would be ignored, such as a misspelt one.

    Args:
        name (str): Where the settings stand in the config.
        settings (Iterable[str]): Their keys. mmengine's ``_scope_`` may be
            among them.
        known (Iterable[str]): The keys that have an effect.

    Raises:
        UserError: If there is another.
    """
    known = list(known)
    unknown = sorted(set(settings) - {*known, '_scope_'})
    if unknown:
        alike = most_alike(unknown[0], known, count=1)
        hint = f', most like {alike[0]!r}' if alike else ''
        raise UserError(
            f'{name} has the unknown key {unknown[0]!r}{hint}; it takes '
            f'{", ".join(known)}'
        )


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


def check_number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a setting that is no number, or out of its range.

    Args:
        name (str): Where it stands in the config.
        value (Any): What the config says.
        low (float, optional): The least that it may be.
        high (float, optional): The most that it may be.
        above (float, optional): It has to be larger.
        below (float, optional): It has to be smaller.

    Raises:
        UserError: If it is something else.
    """
    bounds = {
        'at least': (low, lambda number, bound: number >= bound),
        'above': (above, lambda number, bound: number > bound),
        'at most': (high, lambda number, bound: number <= bound),
        'below': (below, lambda number, bound: number < bound),
    }
    asked = {word: b for word, b in bounds.items() if b[0] is not None}
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not all(
        holds(value, bound) for bound, holds in asked.values()
    ):
        words = ' and '.join(f'{word} {b[0]}' for word, b in asked.items())
        raise UserError(f'{name}={value!r} should be a number, {words}')


def check_weights(name: str, module: Any) -> None:
    """Refuse a loss or a cost with a negative weight: it would be sought.

    Args:
        name (str): Where its config stands.
        module (Any): The loss, with ``loss_weight``, or the cost, with
            ``weight``.

    Raises:
        UserError: If the weight is negative.
    """
    for key in ('loss_weight', 'weight'):
        value = getattr(module, key, None)
        if isinstance(value, Real):
            check_number(f'{name}.{key}', value, low=0)
