# Copyright (c) mmdetr authors. All rights reserved.
"""Settings of a config, checked by the types of dataclasses and arguments.

Supported are ``int``, ``float``, ``bool``, ``Literal``, numbers with a
:class:`Range`, dataclasses for dicts, and lists or ``| None`` of these. Values
of other types are not checked.
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

# Higher than for types, since many keys share endings such as _cfg.
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
    """Range of a number, without its ends if it is open."""

    low: float
    high: float = math.inf
    is_open: bool = False
    meaning: str = ''
    """Meaning of the number, such as ``'an IoU'``."""

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
        settings (dict, optional): Values that replace defaults; mmengine's
            ``_scope_`` is ignored.
        where (str): Place in the config, such as ``model.one2many``.

    Raises:
        UserError: If a key is unknown, or a value has a wrong type or is out
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
        kind (type): Expected type.
        value (Any): The value.
        where (str): Place in the config.
        default (Any): Defaults of a dict. By default those of its dataclass.

    Returns:
        Any: The value; integral floats become ``int`` where one is expected.
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
    """Describe the expected value; '' if the value is valid."""
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
    """Decorator that checks the arguments of a constructor.

    Args:
        where (str): Their place in the config.
        **handed_on: Types of arguments in its ``**kwargs``.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kinds = get_type_hints(function, include_extras=True) | handed_on
        names = inspect.getfullargspec(function).args

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # Too many arguments raise in the function itself.
            for name, value in [*zip(names, args), *kwargs.items()]:  # noqa: B905
                if name in kinds:
                    read_setting(kinds[name], value, f'{where}.{name}')
            return function(*args, **kwargs)

        return call

    return decorate


def check_keys(
    where: str, keys: Iterable[str], known: Collection[str], owner: str = ''
) -> None:
    """Raise for unknown keys, such as misspelt ones.

    Args:
        where (str): Place of the settings in the config.
        keys (Iterable[str]): Their keys; ``_scope_`` is ignored.
        known (Collection[str]): Known keys.
        owner (str): Class that takes them. Defaults to the settings.

    Raises:
        UserError: If there is one, with similar names.
    """
    owner = owner or where.rpartition('.')[2]
    for key in keys:
        if key not in (*known, '_scope_'):
            raise UserError(f'{where}.{key}: {refusal(owner, key, known)}')


def refusal(owner: str, key: str, known: Collection[str]) -> str:
    """Message about a key that ``owner`` does not take.

    Returns:
        str: With similar keys: ``"AdamW takes no 'weight_dekay': did you mean
        weight_decay?"``; if there are none, with all keys.
    """
    hint = did_you_mean(key, known, _KEYS_CUTOFF)
    if hint == '.':
        hint = f'; it takes {", ".join(sorted(known))}.'
    return f'{owner} takes no {key!r}{hint}'


def check_weight(where: str, module: Any) -> None:
    """Raise for a negative weight of a loss or a cost.

    Args:
        where (str): Place of its config.
        module (Any): A loss with ``loss_weight``, or a cost with ``weight``.
    """
    for key in ('loss_weight', 'weight'):
        value = getattr(module, key, None)
        if isinstance(value, Real):
            read_setting(NonNegative, value, f'{where}.{key}')
