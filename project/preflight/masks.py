# Copyright (c) mmdetr authors. All rights reserved.
"""Checks the masks of annotations, where masks are needed."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from project.preflight import file_cache
from project.preflight.annotations import AnnotationFile
from project.preflight.coco_json import are_numbers, load_coco_json

NO_MASK, MASK, BROKEN_MASK = 0, 1, 2
_PROBLEMS = {
    NO_MASK: "has no 'segmentation'",
    BROKEN_MASK: "has a 'segmentation' that is neither polygons of finite "
    'numbers nor RLE of the size of its image',
}


def mask_problem(
    file: AnnotationFile,
    chosen: np.ndarray,
    classes: Sequence[str],
    reader: str,
) -> str | None:
    """Find a mask that is missing or cannot be drawn.

    Args:
        file (AnnotationFile): The annotations.
        chosen (ndarray): Annotations that need a mask, bool, shape (num,).
        classes (Sequence[str]): Names of the classes.
        reader (str): What needs the masks, for the message.

    Returns:
        str | None: A message; None if there is no such mask.
    """
    states = mask_states(file)
    for state, problem in _PROBLEMS.items():
        wrong = np.flatnonzero(chosen & (states == state))
        if not len(wrong):
            continue
        index = wrong[0]
        category = file.category_names[file.categories[index]]
        others = f' ({len(wrong):,} do)' if len(wrong) > 1 else ''
        return (
            f'Annotation {file.annotation_ids[index]} of {file.path}, a '
            f'{category!r}, {problem}{others}, but {reader}; expected '
            'polygons or RLE in each annotation, or doing without masks.'
        )
    return None


class _Annotation(msgspec.Struct, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct, gc=False):
    annotations: list[_Annotation]


def mask_states(file: AnnotationFile) -> np.ndarray:
    """Find out which annotations have a mask that can be drawn.

    pycocotools crashes at coordinates that are no numbers.

    Args:
        file (AnnotationFile): The annotations.

    Returns:
        ndarray: int8, shape (num,): ``NO_MASK``, ``MASK`` or
        ``BROKEN_MASK``.
    """
    cached = file_cache.CachedFile('masks', file.path)
    kept = cached.load()
    if kept is None:
        kept = dict(states=np.fromiter(_states(file), np.int8))
        cached.store(kept)
    return kept['states']


def _states(file: AnnotationFile) -> Iterator[int]:
    """State of each mask, of a file that has been read once."""
    try:
        text = Path(file.path).read_bytes()
        annotations = msgspec.json.decode(text, type=_File).annotations
        masks = [bytes(annotation.segmentation) for annotation in annotations]
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        content = load_coco_json(file.path)
        masks = [a.get('segmentation') for a in content['annotations']]
    for mask, image in zip(masks, file.images, strict=True):
        if isinstance(mask, bytes):
            if _are_plain_polygons(mask):
                yield MASK
                continue
            mask = json.loads(mask or b'null')
        yield mask_state(mask, file.sizes[image] if image >= 0 else None)


def _are_plain_polygons(mask: bytes) -> bool:
    """Whether a mask is a list of lists of numbers, and no more."""
    return (
        mask[:2] == b'[['
        and mask[-2:] == b']]'
        and mask.count(b'[') == mask.count(b'],[') + mask.count(b'], [') + 2
        # Neither texts nor exponents, with which a number may be infinite.
        and not mask.translate(None, b'0123456789.-,[] ')
    )


def mask_state(mask: Any, size: tuple[float, float] | None) -> int:
    """Find out whether a mask can be drawn.

    Args:
        mask (Any): ``segmentation`` of an annotation.
        size (tuple[float, float], optional): (width, height) of its image.

    Returns:
        int: ``NO_MASK``, ``MASK`` or ``BROKEN_MASK``.
    """
    if not mask:
        return NO_MASK
    is_list = isinstance(mask, list)
    fits = _are_polygons(mask) if is_list else _is_rle(mask, size)
    return MASK if fits else BROKEN_MASK


def _are_polygons(polygons: list) -> bool:
    """Return whether all coordinates are finite numbers."""
    try:
        return all(math.isfinite(sum(polygon)) for polygon in polygons)
    except (TypeError, OverflowError):
        return False


def _is_rle(mask: Any, size: tuple[float, float] | None) -> bool:
    """Return whether a value is a valid RLE of the size of its image."""
    if not isinstance(mask, dict):
        return False
    counts, found = mask.get('counts'), mask.get('size')
    if not isinstance(counts, (str, list)) or not are_numbers(found, 2):
        return False
    if size is not None and tuple(found[::-1]) != tuple(size):
        return False
    if isinstance(counts, str):
        return bool(counts)
    return all(type(run) is int and run >= 0 for run in counts) and (
        sum(counts) == found[0] * found[1]
    )
