# Copyright (c) mmdetr authors. All rights reserved.
"""Recognises datasets in other formats than COCO's."""

import itertools
from collections.abc import Iterator
from pathlib import Path

_MAX_LOOKED_AT = 2000
"""Number of files and folders of a dataset that are looked at."""
_MAX_NAMED = 3


def recognised(root: str) -> str:
    """Describe what a data root holds instead of COCO annotations.

    Returns:
        str: The end of a sentence, such as ``; DIR looks like a YOLO dataset
        ...``; empty if nothing is recognised.
    """
    folder = Path(root or '.')
    if not folder.is_dir():
        return ''
    if is_yolo(folder):
        return (
            f'; {root} looks like a YOLO dataset (data.yaml, labels/*.txt): '
            'make COCO annotations of it with python -m project yolo-to-coco'
        )
    if is_voc(folder):
        return (
            f'; {root} looks like a Pascal VOC dataset (Annotations/*.xml): '
            'set the type of the dataset to XMLDataset as docs/data.md shows'
        )
    found = [str(path.relative_to(folder)) for path in _some(folder, '.json')]
    if found:
        names = ', '.join(found[:_MAX_NAMED])
        more = ', ...' if len(found) > _MAX_NAMED else ''
        return f'; the json files of {root} are {names}{more}'
    return ''


def is_yolo(folder: Path) -> bool:
    """Return whether there are YOLO's ``labels/*.txt``."""
    labels = [folder / 'labels', *folder.glob('*/labels')]
    return any(path.is_dir() for path in labels) and (
        any(folder.glob('*.yaml'))
        or any(next(_some(path, '.txt'), None) for path in labels)
    )


def is_voc(folder: Path) -> bool:
    """Return whether there are Pascal VOC's ``Annotations/*.xml``."""
    places = ('Annotations', 'VOC*/Annotations', 'VOCdevkit/*/Annotations')
    found = itertools.chain(*(folder.glob(place) for place in places))
    return any(next(_some(path, '.xml'), None) for path in found)


def _some(folder: Path, ending: str) -> Iterator[Path]:
    """Yield files with an extension among the first ones found."""
    if folder.is_dir():
        entries = itertools.islice(folder.rglob('*'), _MAX_LOOKED_AT)
        yield from (path for path in entries if path.suffix == ending)
