# Copyright (c) mmdetr authors. All rights reserved.
"""Reads a sound COCO json by column, ten times as fast as Python's json.

No object is made of what the checks do not need. A file with anything unusual
is left to :mod:`.coco_json`, which explains what is wrong with it.
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from project.preflight.coco_json import (
    boxes_of_first,
    first_unlisted,
    positions,
)


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


def read_sound(path: str, num_images: int, num_boxes: int) -> dict | None:
    """Read a file by column.

    Args:
        path (str): Path of the file.
        num_images (int): Images that the sample has at most.
        num_boxes (int): Annotations that the sample has at most.

    Returns:
        dict | None: The columns of ``AnnotationFile``; None where the file is
        not as expected in every respect.
    """
    try:
        text = Path(path).read_bytes()
        text.isascii() or text.decode()
        file = msgspec.json.decode(text, type=_File)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    columns = _columns(file)
    if not file.images or not _is_sound(columns):
        return None
    boxes = boxes_of_first(num_images, columns['images'], num_boxes)
    records = msgspec.json.decode(text, type=_Records)
    return columns | dict(
        unlisted=dict(
            image_id=first_unlisted(
                [a.image_id for a in file.annotations], columns['images']
            ),
            category_id=first_unlisted(
                [a.category_id for a in file.annotations],
                columns['categories'],
            ),
        ),
        sample=dict(
            images=[_object(raw) for raw in records.images[:num_images]],
            annotations=[
                _object(records.annotations[index]) for index in boxes
            ],
            categories=[_object(raw) for raw in records.categories],
        ),
    )


def _object(raw: msgspec.Raw) -> dict:
    return json.loads(bytes(raw))


def _columns(file: _File) -> dict[str, Any]:
    """Gather what the records say of a thing."""
    annotations = file.annotations
    image_ids = [image.id for image in file.images]
    category_ids = [category.id for category in file.categories]
    sizes = np.array([(i.width, i.height) for i in file.images], np.float64)
    boxes = np.fromiter(
        chain.from_iterable(a.bbox for a in annotations),
        np.float64,
        4 * len(annotations),
    )
    return dict(
        image_ids=image_ids,
        names=[image.file_name for image in file.images],
        sizes=sizes.reshape(-1, 2),
        category_ids=category_ids,
        category_names=[category.name for category in file.categories],
        annotation_ids=[a.id for a in annotations],
        boxes=boxes.reshape(-1, 4),
        areas=np.array([a.area for a in annotations], np.float64),
        images=positions([a.image_id for a in annotations], image_ids),
        categories=positions(
            [a.category_id for a in annotations], category_ids
        ),
        crowds=_flags([a.iscrowd for a in annotations]),
        ignored=_flags([a.ignore for a in annotations]),
    )


def _flags(values: list[int | None]) -> np.ndarray:
    """0 or 1; 2 where there is none."""
    flags = (2 if value is None else value != 0 for value in values)
    return np.fromiter(flags, np.int8, len(values))


def _is_sound(columns: dict[str, Any]) -> bool:
    """Return whether there is nothing to explain."""
    names = ('image_ids', 'category_ids', 'annotation_ids')
    are_unique = all(
        len(set(columns[name])) == len(columns[name]) for name in names
    )
    sizes, boxes = columns['sizes'], columns['boxes']
    return bool(
        are_unique
        and columns['category_ids']
        and np.isfinite(boxes).all()
        and np.isfinite(columns['areas']).all()
        and (np.isfinite(sizes) & (sizes > 0)).all()
        and not any('\0' in name for name in columns['names'])
    )
