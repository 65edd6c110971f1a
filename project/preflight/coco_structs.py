# Copyright (c) mmdetr authors. All rights reserved.
"""Reads a sound COCO json by column, ten times as fast as Python's json.

No object is made of what the checks do not need. A file with anything unusual
is left to :mod:`.coco_json`, which explains what is wrong with it.
"""

import json
import mmap
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from project.preflight.coco_json import first_unlisted, sample_of
from project.preflight.json_pieces import (
    check_unique,
    cuts,
    pieces_read,
)

_KEY = 'annotations'


class _Image(msgspec.Struct, gc=False):
    id: int
    width: float
    height: float
    file_name: str = ''


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int | None = None
    ignore: int | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Records(msgspec.Struct, gc=False):
    """The same file, whose records are kept as they are written."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


def read_sound(path: str) -> dict | None:
    """Read a file by column.

    Args:
        path (str): Path of the file.

    Returns:
        dict | None: The columns of ``AnnotationFile``; None where the file is
        not as expected in every respect.
    """
    try:
        with (
            open(path, 'rb') as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            places = cuts(text, _KEY)
            try:
                return _read(path, text, places)
            except (ValueError, msgspec.MsgspecError):
                return _read(path, text, []) if places else None
    except _ERRORS:
        return None


_ERRORS = (
    *(OSError, ValueError, OverflowError, RecursionError),
    *(msgspec.MsgspecError, BrokenExecutor),
)


def _read(path: str, text: mmap.mmap, places: list[int]) -> dict | None:
    """Read pieces of the annotations by themselves, and the rest."""
    with pieces_read(path, places, _read_annotations) as pieces:
        rest = text[: places[0]] + text[places[-1] :] if places else text[:]
        if places:
            check_unique(rest, _KEY)
        _check_encoding(rest)
        file = msgspec.json.decode(rest, type=_File)
        listed = _image_columns(file) | _category_columns(file)
        indices = _indices(listed)
        last = indices(_annotation_columns(file.annotations))
        sample = _sample(rest, last['images'])
        columns = _joined([*map(indices, pieces), last]) | listed
    if not (file.images and _is_sound(columns)):
        return None
    unlisted = dict(
        image_id=first_unlisted(columns.pop('image_id'), columns['images']),
        category_id=first_unlisted(
            columns.pop('category_id'), columns['categories']
        ),
    )
    columns['annotation_ids'] = columns['annotation_ids'].tolist()
    return columns | dict(unlisted=unlisted, sample=sample)


def _check_encoding(text: bytes) -> None:
    """Raise UnicodeDecodeError where Python's json would."""
    text.isascii() or text.decode()


def _read_annotations(lists: Iterable[bytes]) -> dict[str, np.ndarray]:
    parts = []
    for text in lists:
        _check_encoding(text)
        annotations = msgspec.json.decode(text, type=list[_Annotation])
        parts.append(_annotation_columns(annotations))
    return _joined(parts)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }


def _annotation_columns(
    annotations: list[_Annotation],
) -> dict[str, np.ndarray]:
    num = len(annotations)
    boxes = chain.from_iterable([a.bbox for a in annotations])
    return dict(
        annotation_ids=np.array([a.id for a in annotations], np.int64),
        image_id=np.array([a.image_id for a in annotations], np.int64),
        category_id=np.array([a.category_id for a in annotations], np.int64),
        boxes=np.fromiter(boxes, np.float64, 4 * num).reshape(-1, 4),
        areas=np.array([a.area for a in annotations], np.float64),
        crowds=_flags([a.iscrowd for a in annotations]),
        ignored=_flags([a.ignore for a in annotations]),
    )


def _image_columns(file: _File) -> dict[str, Any]:
    sizes = np.array([(i.width, i.height) for i in file.images], np.float64)
    return dict(
        image_ids=[image.id for image in file.images],
        names=[image.file_name for image in file.images],
        sizes=sizes.reshape(-1, 2),
    )


def _category_columns(file: _File) -> dict[str, Any]:
    return dict(
        category_ids=[category.id for category in file.categories],
        category_names=[category.name for category in file.categories],
    )


def _indices(listed: dict[str, Any]) -> Callable[[dict], dict]:
    """What adds the indices of images and categories to annotations."""
    image = _finder(listed['image_ids'])
    category = _finder(listed['category_ids'])

    def add(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return columns | dict(
            images=image(columns['image_id']),
            categories=category(columns['category_id']),
        )

    return add


def _finder(known: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the index of each id; -1 if it is not listed."""
    order = np.argsort(known)
    in_order = np.append(np.array(known, np.int64)[order], -1)
    order = np.append(order, -1)

    def find(ids: np.ndarray) -> np.ndarray:
        found = np.searchsorted(in_order[:-1], ids)
        return np.where(in_order[found] == ids, order[found], -1)

    return find


def _sample(text: bytes, of_image: np.ndarray) -> dict:
    """Take some annotations and their images, with all of their keys."""
    records = msgspec.json.decode(text, type=_Records)
    images, boxes = sample_of(of_image, len(records.images))
    return dict(
        images=[json.loads(bytes(records.images[i])) for i in images],
        annotations=[json.loads(bytes(records.annotations[i])) for i in boxes],
        categories=[json.loads(bytes(raw)) for raw in records.categories],
    )


def _flags(values: list[int | None]) -> np.ndarray:
    """0 or 1; 2 where there is none."""
    if values.count(None) == len(values):
        return np.full(len(values), 2, np.int8)
    flags = np.array(values, np.float64)  # None becomes NaN
    return np.where(np.isnan(flags), 2, flags != 0).astype(np.int8)


def _is_sound(columns: dict[str, Any]) -> bool:
    """Return whether there is nothing to explain."""
    ids = map(columns.get, ('image_ids', 'category_ids', 'annotation_ids'))
    in_order = (np.sort(np.array(of, np.int64)) for of in ids)
    are_unique = all((of[1:] != of[:-1]).all() for of in in_order)
    sizes, boxes = columns['sizes'], columns['boxes']
    return bool(
        are_unique
        and columns['category_ids']
        and np.isfinite(boxes).all()
        and np.isfinite(columns['areas']).all()
        and (np.isfinite(sizes) & (sizes > 0)).all()
        and '\0' not in ''.join(columns['names'])
    )
