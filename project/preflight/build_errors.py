# Copyright (c) mmdetr authors. All rights reserved.
"""Says in the config's words why something could not be built from it."""

import contextlib
import inspect
import re
import traceback
from collections.abc import Iterator
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config

from project.preflight.config_tree import all_dicts, named_dicts, registered
from project.preflight.misspellings import unknown_type
from project.preflight.signatures import listed_keys
from project.utils.errors import UserError
from project.utils.settings import refusal

_LONGEST_REASON = 300


@contextlib.contextmanager
def told_by_config(cfg: Config) -> Iterator[None]:
    """Turn what building from a config raises into one sentence.

    The exception itself is the cause of the one that is raised, and its type
    and message are part of the sentence unless they say less than it. Faults
    of the machine (files, memory, devices, processes) are not the config's
    and stay as they are.

    Raises:
        UserError: In place of any other exception.
    """
    try:
        yield
    except (UserError, OSError, RuntimeError):
        raise
    except Exception as error:
        raise UserError(explain(error, cfg)) from error


def explain(error: Exception, cfg: Config) -> str:
    """Find the place in the config that an exception comes from.

    Args:
        error (Exception): What building raised, with its traceback.
        cfg (Config): The config that it was built from.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    part, registry = _innermost_part(frames)
    name = _place(cfg, part) if part is not None else ''
    text = str(error)
    kind = (part or {}).get('type')
    if 'is not in the' in text and registry and isinstance(kind, str):
        return unknown_type(name, kind, registry)
    layer = _unknown_layer(part, name) if 'Cannot find' in text else None
    if layer:
        return layer
    unexpected = re.search(
        r'(\S+?)(?:\.__init__)?\(\) got an unexpected keyword argument '
        r"'(\w+)'",
        text,
    )
    if unexpected:
        return _unexpected(cfg, part, name, frames, *unexpected.groups())
    missing = re.search(
        r'(\S+?)(?:\.__init__)?\(\) missing \d+ required .*?: (.+)', text
    )
    if missing:
        owner, keys = missing.groups()
        where = name or 'the config'
        return f'{where} lacks {keys}, which {owner.split(".")[-1]} needs.'
    where = f'{name} ({_title(part)})' if name else 'What the config asks for'
    return f'{where} cannot be built: {reason(error)}'


def reason(error: BaseException) -> str:
    """Say in one line what went wrong, and where if the error does not.

    Returns:
        str: Type and message, shortened.
    """
    text = ' '.join(str(error).split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + ' ...'
    if not text:
        stack = traceback.extract_tb(error.__traceback__)
        text = f'{stack[-1].line} (in {stack[-1].name})' if stack else ''
    return f'{type(error).__name__}: {text}'


def _unknown_layer(part: dict | None, name: str) -> str | None:
    """Find the layer, such as a norm, that mmcv does not know."""
    for place, found in named_dicts(part, name):
        kind = found.get('type')
        is_layer = re.search(r'(norm|conv|act|upsample)_cfg$', place)
        if not is_layer or not isinstance(kind, str):
            continue
        if registered(kind, MODELS) is None:
            return unknown_type(place, kind, MODELS)
    return None


def _innermost_part(frames: list) -> tuple[dict | None, Any]:
    """The dict that was being built, and the registry that was asked."""
    for frame, _ in reversed(frames):
        if frame.f_code.co_name == 'build_from_cfg':
            found = frame.f_locals
            return found.get('cfg'), found.get('registry')
    return None, None


def _place(cfg: Config, part: dict) -> str:
    """Find a dict in the config; it may have got more keys since."""
    best, most = '', -1
    for name, other in all_dicts(cfg):
        if other.get('type') == part.get('type'):
            same = sum(part.get(k) == v for k, v in other.items())
            same -= sum(k not in part for k in other)
            if same > most:
                best, most = name, same
    return best or str(part.get('type', ''))


def _unexpected(
    cfg: Config,
    part: dict | None,
    name: str,
    frames: list,
    owner: str,
    key: str,
) -> str:
    """Tell about a key that a class does not take."""
    title = owner.split('.')[-1]
    target = _find_class(frames, title)
    known = listed_keys(target)
    places = [
        place
        for place, found in all_dicts(cfg)
        if key in found and _is_under(place, name)
    ]
    if part is not None and key in part and name in places:
        # A parent's __init__ may be the one that refuses it.
        title = _title(part)
        known = _known_of_part(frames) or known
        return f'{name}.{key}: {refusal(title, key, known)}'
    if places:
        return f'{places[0]}.{key}: {refusal(title, key, known)}'
    return (
        f'{name or "The config"}: {_title(part)} is no type for this place: '
        f'it is given {key!r} there, which {title} does not take; choose the '
        f'one that belongs to {_title(_parent(cfg, name))}.'
    )


def _is_under(place: str, name: str) -> bool:
    """Tell whether a place of the config is another one or within it."""
    inner = place.startswith((f'{name}.', f'{name}['))
    return not name or place == name or inner


def _parent(cfg: Config, name: str) -> dict | None:
    """The part that another one is in."""
    return dict(all_dicts(cfg)).get(name.rpartition('.')[0])


def _known_of_part(frames: list) -> set[str]:
    """What the class that was being built takes."""
    for frame, _ in reversed(frames):
        if frame.f_code.co_name == 'build_from_cfg':
            return listed_keys(frame.f_locals.get('obj_cls'))
    return set()


def _find_class(frames: list, title: str) -> Any:
    """Find a class by its name among what the code that failed can see."""
    for frame, _ in reversed(frames):
        for names in (frame.f_locals, frame.f_globals):
            found = names.get(title)
            if inspect.isclass(found):
                return found
            for value in names.values():
                kind = value if inspect.isclass(value) else type(value)
                for parent in kind.__mro__:
                    if parent.__name__ == title:
                        return parent
    return None


def _title(part: dict | None) -> str:
    """The type of a part as text."""
    kind = (part or {}).get('type', 'part')
    return getattr(kind, '__name__', str(kind))
