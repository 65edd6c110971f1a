# Copyright (c) mmdetr authors. All rights reserved.
"""Settings of a config, checked by the types of dataclasses and arguments.

These are ``int``, ``float``, ``bool``, ``Literal``, numbers with a
:class:`Range`, dataclasses for dicts, and lists or ``| None`` of all of them.
Other types are not looked at.
"""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from project.utils.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar('S', bound='DataclassInstance')
T = TypeVar('T')
P = ParamSpec('P')

# Keys end alike, in _cfg and such, and have to be more alike than types.
_KEYS_CUTOFF = 0.72
_NAMES = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    list: 'a list',
    Sequence: 'a list',
}


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be; without its ends if it is open."""

    low: float
    high: float = math.inf
    is_open: bool = False
    meaning: str = ''
    """What the number is, such as ``'an IoU'``."""

    def __contains__(self, number: float) -> bool:
        if self.is_open and number in (self.low, self.high):
            return number == math.inf
        return self.low <= number <= self.high

    def __str__(self) -> str:
        has_end = self.high < math.inf
        if self.is_open:
            return f'above {self.low}' + f' and below {self.high}' * has_end
        return f'{self.low} {f"to {self.high}" if has_end else "or more"}'


Count = Annotated[int, Range(0)]
PositiveCount = Annotated[int, Range(1)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, is_open=True)]
Eps = Annotated[float, Range(0, 0.5, is_open=True)]
Share = Annotated[float, Range(0, 1, meaning='a share')]
IoU = Annotated[float, Range(0, 1, meaning='an IoU')]


def read_settings(defaults: S, settings: Mapping | None, where: str) -> S:
    """Read a dict of the config into a dataclass.

    Args:
        defaults (S): An instance of the dataclass.
        settings (dict, optional): What the config says instead. mmengine's
            ``_scope_`` may be among the keys.
        where (str): Where it stands in the config, ``model.one2many``.

    Raises:
        UserError: If a key is unknown, or a value has another type or is out
            of its range.
    """
    kinds = {field.name: field.type for field in fields(defaults)}
    if not isinstance(settings, Mapping | NoneType):
        keys = ', '.join(kinds)
        raise UserError(f'{where}={settings!r} should be a dict of {keys}.')
    values = {k: v for k, v in (settings or {}).items() if k != '_scope_'}
    check_keys(where, values, kinds)
    for key, value in values.items():
        place, default = f'{where}.{key}', getattr(defaults, key)
        values[key] = read_setting(kinds[key], value, place, default)
    return replace(defaults, **values)


def read_setting(
    kind: Any, value: Any, where: str, default: Any = None
) -> Any:
    """Read one value of the config, as :func:`read_settings`.

    Args:
        kind (type): What it should be.
        value (Any): What the config says.
        where (str): Where it stands in the config.
        default (Any): What a dict leaves out, if not that of its dataclass.

    Returns:
        Any: The value; a whole number that was computed as ``int``.
    """
    origin, args = get_origin(kind), get_args(kind)
    if args[1:] == (NoneType,):
        if value is None:
            return None
        return read_setting(args[0], value, where, default)
    if is_dataclass(kind):
        return read_settings(default or kind(), value, where)  # type: ignore[operator]
    if origin in (list, Sequence) and isinstance(value, list | tuple):
        items = enumerate(value)
        return [read_setting(args[0], v, f'{where}[{i}]') for i, v in items]
    expected = _expected(kind, value)
    if expected:
        raise UserError(f'{where}={value!r} should be {expected}.')
    return int(value) if int in (kind, *args[:1]) else value


def _expected(kind: Any, value: Any) -> str:
    """Say what a value should be; nothing if it is."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        is_right = not _expected(args[0], value) and value in args[1]
        expected = f'{args[1].meaning or _NAMES[args[0]]}, {args[1]}'
    elif origin is Literal:
        is_right, expected = value in args, ', '.join(map(repr, args))
        expected = f'{"one of " * (len(args) > 1)}{expected}'
    elif kind in (int, float):
        is_right = isinstance(value, Real) and not isinstance(value, bool)
        is_right = is_right and (kind is float or value % 1 == 0)
        expected = _NAMES[kind]
    else:
        expected = _NAMES.get(origin or kind, '')
        is_right = not expected or isinstance(value, origin or kind)
    return '' if is_right else expected


def checked(
    where: str, **handed_on: Any
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a constructor whose arguments are settings.

    Args:
        where (str): Where they stand in the config.
        **handed_on: Types of those that are in its ``**kwargs``.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kinds = get_type_hints(function, include_extras=True) | handed_on
        names = inspect.getfullargspec(function).args

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # More arguments than names are refused by the function itself.
            for name, value in [*zip(names, args), *kwargs.items()]:  # noqa: B905
                if name in kinds:
                    read_setting(kinds[name], value, f'{where}.{name}')
            return function(*args, **kwargs)

        return call

    return decorate


def check_keys(
    where: str, keys: Iterable[str], known: Collection[str], owner: str = ''
) -> None:
    """Refuse a key that would be ignored, such as a misspelt one.

    Args:
        where (str): Where the settings stand in the config.
        keys (Iterable[str]): Their keys, ``_scope_`` among them.
        known (Collection[str]): The keys that have an effect.
        owner (str): What takes them. By default the settings themselves.

    Raises:
        UserError: If there is another; names those most alike.
    """
    owner = owner or where.rpartition('.')[2]
    for key in keys:
        if key not in (*known, '_scope_'):
            raise UserError(f'{where}.{key}: {refusal(owner, key, known)}')


def refusal(owner: str, key: str, known: Collection[str]) -> str:
    """Tell that something does not take a key.

    Returns:
        str: With those most alike: ``"AdamW takes no 'weight_dekay': did you
        mean weight_decay?"``; or else with all.
    """
    hint = did_you_mean(key, known, _KEYS_CUTOFF)
    if hint == '.':
        hint = f'; it takes {", ".join(sorted(known))}.'
    return f'{owner} takes no {key!r}{hint}'


def check_weight(where: str, module: Any) -> None:
    """Refuse a negative weight of a loss or a cost: it would be sought.

    Args:
        where (str): Where its config stands.
        module (Any): The loss, with ``loss_weight``, or the cost, with
            ``weight``.
    """
    for key in ('loss_weight', 'weight'):
        value = getattr(module, key, None)
        if isinstance(value, Real):
            read_setting(NonNegative, value, f'{where}.{key}')
