# Copyright (c) mmdetr authors. All rights reserved.
"""COCO annotation files as the checks need them: by column."""

import contextlib
import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from project.preflight import file_cache
from project.preflight.coco_json import (
    Records,
    first_unlisted,
    load_coco_json,
    positions,
    sample_of,
)
from project.preflight.coco_structs import read_sound
from project.utils.errors import UserError

_TEXTS = ('names', 'category_names')
_JSON = (
    *('image_ids', 'category_ids', 'annotation_ids'),
    *('unlisted', 'sample'),
)


@dataclass(frozen=True)
class AnnotationFile:
    """The columns of a COCO json.

    Attributes:
        path (str): Path of the file.
        image_ids (list): ``id`` of each image.
        names (list[str]): ``file_name`` of each image; empty if it has none.
        sizes (ndarray): (width, height) of each image, shape
            (num_images, 2); NaN if the file does not say.
        category_ids (list): ``id`` of each category.
        category_names (list[str]): ``name`` of each category.
        annotation_ids (list): ``id`` of each annotation.
        boxes (ndarray): (x, y, width, height) of each annotation, float64,
            shape (num, 4).
        areas (ndarray): ``area`` of each annotation, shape (num,).
        images (ndarray): Index of each annotation's image, int64, shape
            (num,); -1 if the image is not listed.
        categories (ndarray): Index of each annotation's category, likewise.
        crowds (ndarray): ``iscrowd`` of each annotation; 2 if it is missing
            or null.
        ignored (ndarray): ``ignore`` of each annotation, likewise.
        unlisted (dict[str, str]): The first ``image_id`` and ``category_id``
            that are not listed, as they stand in the file.
        sample (dict): A COCO json of some annotations and their images.
    """

    path: str
    image_ids: list
    names: list[str]
    sizes: np.ndarray
    category_ids: list
    category_names: list[str]
    annotation_ids: list
    boxes: np.ndarray
    areas: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    crowds: np.ndarray
    ignored: np.ndarray
    unlisted: dict[str, str]
    sample: dict

    @classmethod
    def read(cls, path: str) -> 'AnnotationFile':
        """Read a file, or its columns from the cache.

        Raises:
            UserError: If it is no COCO json, has no categories or images, or
                lacks keys that mmdet and pycocotools read.
        """
        try:
            cached = file_cache.CachedFile('annotations', path)
        except OSError as error:
            raise UserError(
                f'The annotation file {path} cannot be read: {error.strerror}.'
            ) from error
        kept = cached.load()
        if kept is not None:
            return cls(path=path, **_unpacked(kept))
        with _without_collector():
            columns = read_sound(path)
            if columns is None:
                columns = _columns(path, load_coco_json(path))
        read = cls(path=path, **columns)
        cached.store(_packed(read))
        return read

    def place(self, index: int) -> str:
        """Name an annotation, such as ``annotation 7 (annotations[3])``."""
        return (
            f'annotation {self.annotation_ids[index]} (annotations[{index}])'
        )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause garbage collection while millions of objects are created."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _columns(path: str, content: dict[str, Any]) -> dict[str, Any]:
    """Read the lists of a file by column."""
    images = Records(path, 'images', content['images'])
    categories = Records(path, 'categories', content['categories'])
    annotations = Records(path, 'annotations', content['annotations'])
    if not images.records:
        raise UserError(f'The annotation file {path} lists no images.')
    image_ids, category_ids = images.unique_ids(), categories.unique_ids()
    of_image = positions(annotations.ids('image_id', 'an image'), image_ids)
    of_category = positions(
        annotations.ids('category_id', 'a category'), category_ids
    )
    sizes = _sizes(images)
    boxes = annotations.numbers('bbox', '[x, y, width, height]', width=4)
    _refuse_endless(annotations, boxes)
    return dict(
        image_ids=image_ids,
        names=_names(images),
        sizes=sizes,
        category_ids=category_ids,
        category_names=list(map(str, categories.ids('name'))),
        annotation_ids=annotations.unique_ids(),
        boxes=boxes.reshape(-1, 4),
        areas=annotations.numbers(
            'area', '[x, y, width, height] as bbox and a number as area'
        ),
        images=of_image,
        categories=of_category,
        crowds=annotations.flags('iscrowd'),
        ignored=annotations.flags('ignore'),
        unlisted={
            key: first_unlisted(annotations.values(key), found)
            for key, found in (
                ('image_id', of_image),
                ('category_id', of_category),
            )
        },
        sample=_sample(content, of_image),
    )


def _names(images: Records) -> list[str]:
    """Read the file names, which some formats omit."""
    names = [record.get('file_name', '') for record in images.records]
    for index, name in enumerate(names):
        if not isinstance(name, str) or '\0' in name:
            raise UserError(
                f'{images.place(index)} of the annotation file '
                f'{images.path} has the file_name {name!r}; expected the '
                'path of a file.'
            )
    return names


def _refuse_endless(annotations: Records, boxes: np.ndarray) -> None:
    """Raise if a box is infinite; mmdet would not notice."""
    endless = np.flatnonzero(np.isinf(boxes).any(-1))
    if len(endless):
        index = endless[0]
        raise UserError(
            f'Annotation {annotations.records[index]["id"]} of '
            f'{annotations.path} has the bbox {boxes[index].tolist()} (in '
            f'{annotations.place(index)}); expected [x, y, width, height] in '
            'pixels.'
        )


def _sizes(images: Records) -> np.ndarray:
    """Read width and height of the images."""
    columns = [
        images.numbers(key, 'a number of pixels')
        for key in ('width', 'height')
    ]
    sizes = np.stack(columns, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)).all(1))
    if len(wrong):
        width, height = sizes[wrong[0]]
        raise UserError(
            f'{images.place(wrong[0])} of the annotation file {images.path} '
            f'has the width {width:g} and the height {height:g}; expected '
            'numbers of pixels.'
        )
    return sizes


def _sample(content: dict[str, Any], of_image: np.ndarray) -> dict:
    """Take some annotations and their images."""
    images, boxes = sample_of(of_image, len(content['images']))
    return dict(
        images=[content['images'][index] for index in images],
        annotations=[content['annotations'][index] for index in boxes],
        categories=content['categories'],
    )


def _packed(read: AnnotationFile) -> dict[str, np.ndarray]:
    """Convert the columns into arrays without Python objects."""
    packed = {}
    for field in fields(read):
        value = getattr(read, field.name)
        if field.name in _TEXTS:
            value = file_cache.pack_texts(value)
        elif field.name in _JSON:
            value = _packed_json(value)
        if field.name != 'path':
            packed[field.name] = value
    return packed


def _packed_json(value: Any) -> np.ndarray:
    """Convert a value into its json, or into an array if it is integers."""
    numbers = np.array(value)
    if numbers.dtype == np.int64:
        return numbers
    return file_cache.pack_texts([json.dumps(value)])


def _unpacked(packed: dict[str, np.ndarray]) -> dict[str, Any]:
    """Undo :func:`_packed`."""
    columns: dict[str, Any] = dict(packed)
    for name in _TEXTS:
        columns[name] = file_cache.unpack_texts(columns[name])
    for name in _JSON:
        value = columns[name]
        columns[name] = (
            value.tolist()
            if value.dtype == np.int64
            else json.loads(file_cache.unpack_texts(value)[0])
        )
    return columns
