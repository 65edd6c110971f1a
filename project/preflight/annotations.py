# Copyright (c) mmdetr authors. All rights reserved.
"""What the checks need of COCO annotation files."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from project.utils.errors import UserError

_NUM_NAMES_SHOWN = 5
_ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')


@dataclass(frozen=True)
class AnnotationFile:
    """What the checks need of a COCO json.

    Attributes:
        path (str): Where it lies.
        categories (tuple[str, ...]): Names in the order of the file.
        first_image (str | None): ``file_name`` of the first image.
        with_annotations (bool): Whether there is any annotation.
        without_mask (dict[str, Any]): The id of an annotation without a mask
            of each category that has one.
    """

    path: str
    categories: tuple[str, ...]
    first_image: str | None
    with_annotations: bool
    without_mask: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> 'AnnotationFile':
        """Read a file.

        Args:
            path (str): An existing file.

        Returns:
            AnnotationFile: Its summary.

        Raises:
            UserError: If it is no COCO json, has no categories, or an
                annotation lacks what mmdet and pycocotools read.
        """
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:  # neither json nor even text
            raise UserError(
                f'The annotation file {path} is not a COCO json: {error}.'
            ) from error
        if not isinstance(content, dict) or 'images' not in content:
            raise UserError(
                f'The annotation file {path} is not a COCO json: expected an '
                "object with 'images', 'annotations' and 'categories'."
            )
        categories = content.get('categories')
        if not categories:
            raise UserError(
                f"The annotation file {path} has no 'categories'; expected a "
                "list such as [{'id': 1, 'name': 'cat'}]."
            )
        _check_annotations(path, content.get('annotations') or [])
        images = content['images']
        return cls(
            path=path,
            categories=tuple(category['name'] for category in categories),
            first_image=images[0]['file_name'] if images else None,
            with_annotations=bool(content.get('annotations')),
            without_mask=_without_mask(content),
        )


def _check_annotations(path: str, annotations: Sequence[dict]) -> None:
    """Raise if an annotation lacks one of the keys that are read."""
    for annotation in annotations:
        missing = [key for key in _ANNOTATION_KEYS if key not in annotation]
        if missing:
            raise UserError(
                f"An annotation of {path} has no '{missing[0]}': "
                f'{shortened(annotation)} are its keys; expected '
                f'{", ".join(_ANNOTATION_KEYS)}.'
            )
        box, area = annotation['bbox'], annotation['area']
        if not (_are_numbers(box, 4) and _are_numbers([area], 1)):
            raise UserError(
                f'Annotation {annotation["id"]} of {path} has the bbox {box} '
                f'and the area {area}; expected [x, y, width, height] and a '
                'number.'
            )


def _are_numbers(values: Any, count: int) -> bool:
    """Tell whether something is a list of so many numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) for value in values)
    )


def _without_mask(content: dict) -> dict[str, Any]:
    """Find annotations without a mask among those that mmdet reads."""
    names = {item['id']: item['name'] for item in content['categories']}
    images = {image['id']: image for image in content['images']}
    return {
        names.get(annotation['category_id'], ''): annotation['id']
        for annotation in content.get('annotations') or []
        if not (annotation.get('segmentation') or annotation.get('ignore'))
        and annotation['image_id'] in images
        and annotation['area'] > 0
        and _is_inside(annotation['bbox'], images[annotation['image_id']])
    }


def _is_inside(bbox: list[float], image: dict) -> bool:
    """Tell whether mmdet trains on a box: it is in the image, of a pixel."""
    x, y, width, height = bbox
    right = min(x + width, image.get('width', math.inf))
    bottom = min(y + height, image.get('height', math.inf))
    is_seen = right > max(x, 0) and bottom > max(y, 0)
    return is_seen and min(width, height) >= 1


def shortened(names: Iterable[str]) -> str:
    """List the first few names."""
    names = list(names)
    shown = ', '.join(map(repr, names[:_NUM_NAMES_SHOWN]))
    more = len(names) - _NUM_NAMES_SHOWN
    return f'{shown} and {more} more' if more > 0 else shown
