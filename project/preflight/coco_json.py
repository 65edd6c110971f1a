# Copyright (c) mmdetr authors. All rights reserved.
"""Reads COCO annotation files and explains why one cannot be read."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from project.utils.errors import UserError, some_of

_NUM_NAMES_SHOWN = 5
_SAMPLE_SIZE, _SAMPLE_BOXES = 50, 200
ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
_LISTS = ('images', 'annotations', 'categories')


def load_coco_json(path: str) -> dict[str, Any]:
    """Read a COCO json and check its three lists.

    Returns:
        dict: Lists of dicts ``images``, ``annotations`` (empty if the file
        has none, as for a test set) and ``categories``.

    Raises:
        UserError: If it cannot be read or is no COCO json.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except OSError as error:
        raise UserError(
            f'The annotation file {path} cannot be read: {error.strerror}.'
        ) from error
    # No json, no text, or nested too deeply.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'The annotation file {path} is not a COCO json: {error}.'
        ) from error
    if not isinstance(content, dict) or 'images' not in content:
        raise UserError(
            f'The annotation file {path} is not a COCO json: expected an '
            "object with 'images', 'annotations' and 'categories'."
        )
    content.setdefault('annotations', [])
    if not content.get('categories'):
        raise UserError(
            f"The annotation file {path} has no 'categories'; expected a "
            "list such as [{'id': 1, 'name': 'cat'}]."
        )
    for name in _LISTS:
        _check_list(path, name, content[name])
    return {name: content[name] for name in _LISTS}


def _check_list(path: str, name: str, records: Any) -> None:
    """Raise unless something is a list of objects."""
    if not isinstance(records, list):
        raise UserError(
            f'{name!r} of the annotation file {path} is '
            f'{_described(records)}; expected a list of objects.'
        )
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(
                f'{name}[{index}] of the annotation file {path} is '
                f'{_described(record)}; expected an object such as '
                f'{_EXAMPLES[name]}.'
            )


_EXAMPLES = dict(
    images="{'id': 1, 'file_name': '1.jpg', 'width': 640, 'height': 480}",
    annotations="{'id': 1, 'image_id': 1, 'category_id': 1, "
    "'bbox': [x, y, width, height], 'area': 9, 'iscrowd': 0}",
    categories="{'id': 1, 'name': 'cat'}",
)


def _described(value: Any) -> str:
    """Describe a value in json's terms."""
    if value is None:
        return 'null'
    kinds: dict[type, str] = {dict: 'an object', list: 'a list'}
    return kinds.get(type(value)) or shortened_text(repr(value))


def shortened_text(text: str, length: int = 60) -> str:
    """Truncate a long text."""
    return text if len(text) <= length else f'{text[:length]}...'


def shortened(names: Iterable[Any]) -> str:
    """List the first few names."""
    return some_of(map(repr, names), _NUM_NAMES_SHOWN)


class Records:
    """One of the lists of a file, read by column.

    Args:
        path (str): Path of the file, for messages.
        name (str): Name of the list.
        records (list[dict]): Its objects.
    """

    def __init__(self, path: str, name: str, records: list[dict]) -> None:
        self.path = path
        self.name = name
        self.records = records

    def values(self, key: str) -> list:
        """Read a key that each object must have.

        Raises:
            UserError: If an object lacks it.
        """
        try:
            return [record[key] for record in self.records]
        except KeyError:
            index = next(
                i for i, record in enumerate(self.records) if key not in record
            )
            found = self.records[index]
        needed: tuple[str, ...] = ANNOTATION_KEYS
        if self.name != 'annotations':
            needed = tuple(
                part.split("'")[1] for part in _EXAMPLES[self.name].split(',')
            )
        noun = 'An annotation' if self.name == 'annotations' else 'One'
        raise UserError(
            f"{noun} of {self._whose()} has no '{key}': {shortened(found)} "
            f'are its keys (in {self.place(index)}); expected '
            f'{", ".join(needed)}.'
        )

    def _whose(self) -> str:
        if self.name == 'annotations':
            return self.path
        return f'the {self.name} of {self.path}'

    def place(self, index: int) -> str:
        """Name the place of an object in the file."""
        return f'{self.name}[{index}]'

    def ids(self, key: str, named: str = '') -> list:
        """Read a key whose values are ids: numbers or strings.

        Raises:
            UserError: If a value is neither.
        """
        values = self.values(key)
        for index, value in enumerate(values):
            if type(value) is int or type(value) is str:
                continue
            if isinstance(value, float) and math.isfinite(value):
                continue
            raise UserError(
                f'{self.place(index)} of the annotation file {self.path} has '
                f"the '{key}' {_described(value)}; expected the number"
                f'{f" of {named}" if named else ""}.'
            )
        return values

    def unique_ids(self) -> list:
        """Read the ids, which must be unique.

        Raises:
            UserError: If two are equal.
        """
        ids = self.ids('id')
        if len(set(ids)) == len(ids):
            return ids
        seen: dict[Any, int] = {}
        num_twice = len(ids) - len(set(ids))
        for index, value in enumerate(ids):
            first = seen.setdefault(value, index)
            if first != index:
                break
        raise UserError(
            f'{self.place(first)} and {self.place(index)} of the annotation '
            f'file {self.path} have the same id {value!r}'
            f'{_more(num_twice - 1, "other")}; expected an id of its own for '
            f'each of the {self.name}.'
        )

    def numbers(self, key: str, expected: str, width: int = 1) -> np.ndarray:
        """Read a key whose values are numbers or lists of numbers.

        Args:
            key (str): The key.
            expected (str): What a value should be, for the message.
            width (int): Length of each list; 1 means plain numbers. Defaults
                to 1.

        Returns:
            ndarray: float64, shape (num,) or (num, width).

        Raises:
            UserError: If a value is something else.
        """
        values = self.values(key)
        shape = (len(values),) if width == 1 else (len(values), width)
        try:
            numbers = np.array(values)
        except (ValueError, OverflowError):  # of different lengths
            numbers = np.array(None)
        if numbers.dtype.kind in 'iuf' and numbers.shape == shape:
            return numbers.astype(np.float64)
        for index, value in enumerate(values):
            if not are_numbers([value] if width == 1 else value, width):
                raise self._no_numbers(index, key, expected)
        try:
            return np.array(values, dtype=np.float64).reshape(shape)
        except OverflowError as error:
            raise UserError(
                f'The {key} of one of {self.name} of {self.path} has more '
                'digits than a number can have.'
            ) from error

    def _no_numbers(self, index: int, key: str, expected: str) -> UserError:
        record = self.records[index]
        value = shortened_text(repr(record[key]))
        if self.name == 'annotations':
            return UserError(
                f'Annotation {record.get("id")} of {self.path} has the {key} '
                f'{value} (in {self.place(index)}); expected {expected}.'
            )
        return UserError(
            f'{self.place(index)} of the annotation file {self.path} has the '
            f'{key} {value}; expected {expected}.'
        )

    def flags(self, key: str) -> np.ndarray:
        """Read an optional key whose values are 0 or 1.

        Returns:
            ndarray: int8, shape (num,); 2 where it is missing or null.

        Raises:
            UserError: If a value is no number: the string '0' would count as
                true.
        """
        values = [record.get(key) for record in self.records]
        for index, value in enumerate(values):
            if value is not None and not isinstance(value, (int, float)):
                raise self._no_numbers(index, key, '0 or 1')
        return np.array(
            [2 if value is None else bool(value) for value in values],
            dtype=np.int8,
        )


def positions(ids: Iterable[Any], known: Iterable[Any]) -> np.ndarray:
    """Index of each id among the known ones; -1 if it is unknown."""
    position = {value: index for index, value in enumerate(known)}
    return np.fromiter((position.get(x, -1) for x in ids), np.int64)


def first_unlisted(ids: Sequence[Any] | np.ndarray, found: np.ndarray) -> str:
    """The first id that is not listed, as JSON; empty if there is none.

    Args:
        ids (Sequence | ndarray): The ids.
        found (ndarray): Their :func:`positions`.
    """
    unlisted = np.flatnonzero(found < 0)
    if not len(unlisted):
        return ''
    first = ids[unlisted[0]]
    return json.dumps(first.item() if isinstance(first, np.generic) else first)


def sample_of(of_image: np.ndarray, num_images: int) -> tuple[list, list]:
    """Choose a few annotations and their images, as indices.

    Args:
        of_image (ndarray): Index of each annotation's image; -1 if it is not
            listed.
        num_images (int): Number of images; the first ones are taken if none
            has an annotation.

    Returns:
        tuple[list[int], list[int]]: Of the images and of the annotations.
    """
    listed = np.flatnonzero(of_image >= 0)[:_SAMPLE_BOXES]
    images = np.unique(of_image[listed])[:_SAMPLE_SIZE]
    chosen = listed[np.isin(of_image[listed], images)]
    first = np.arange(min(num_images, _SAMPLE_SIZE))
    return (images if len(images) else first).tolist(), chosen.tolist()


def _more(count: int, what: str) -> str:
    """End a sentence with the number of further cases."""
    return f' (and {count:,} {what}{"s" * (count > 1)})' if count else ''


def are_numbers(values: Any, count: int) -> TypeGuard[list[float]]:
    """Whether a value is a list of ``count`` numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) for value in values)
    )
