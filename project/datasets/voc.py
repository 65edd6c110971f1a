# Copyright (c) mmdetr authors. All rights reserved.
"""Converts datasets in Pascal VOC's format to COCO annotations."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from project.datasets.coco_writing import shown_size, write_annotations
from project.datasets.yolo import IMAGE_ENDINGS
from project.utils.errors import UserError

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def convert(
    files: Sequence[Path], images: Path, names: Sequence[str], out: Path
) -> None:
    """Write the COCO annotations of some images.

    Boxes are taken as they are written, fractions included, which mmdet's
    ``XMLDataset`` cuts off; those of difficult objects get ``ignore=1``.

    Args:
        files: XML files, one per image.
        images: Folder of the images, whose names are those of the files.
        names: Names of the classes, in order.
        out: File to write.

    Raises:
        UserError: If a file is not in Pascal VOC's format, or an image or a
            class is missing.
    """
    paths = {
        path.stem: path
        for path in sorted(images.iterdir())
        if path.suffix.lower() in IMAGE_ENDINGS
    }
    rows: list[dict] = []
    annotations: list[dict] = []
    for file in files:
        if file.stem not in paths:
            raise UserError(f'{images} has no image for {file}.')
        path, root = paths[file.stem], _read(file)
        width, height = _size(root, path)
        rows.append(
            dict(
                id=len(rows) + 1,
                file_name=path.name,
                width=width,
                height=height,
            )
        )
        for name, is_difficult, box in _objects(root, file):
            x, y, right, bottom = box
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(rows),
                    category_id=names.index(name) + 1,
                    bbox=[x, y, right - x, bottom - y],
                    area=(right - x) * (bottom - y),
                    iscrowd=0,
                    ignore=int(is_difficult),
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    content = dict(images=rows, annotations=annotations, categories=categories)
    write_annotations(content, out)


def read_names(files: Iterable[Path]) -> list[str]:
    """Read the names of all classes, in alphabetical order.

    Raises:
        UserError: If a file is not in Pascal VOC's format.
    """
    found = {name for f in files for name, *_ in _objects(_read(f), f)}
    return sorted(found)


def _read(file: Path) -> ET.Element:
    """Read a file."""
    try:
        return ET.parse(file).getroot()
    except OSError as error:
        raise UserError(
            f'The annotation file {file} cannot be read: {error.strerror}.'
        ) from error
    except ET.ParseError as error:
        raise _other_format(file, error) from error


def _objects(
    root: ET.Element, file: Path
) -> list[tuple[str, bool, list[float]]]:
    """Name, difficulty and (xmin, ymin, xmax, ymax) of each object."""
    try:
        found = [
            (
                (item.findtext('name') or '').strip(),
                item.findtext('difficult', '0').strip() == '1',
                [float(item.findtext(f'bndbox/{c}') or '') for c in _CORNERS],
            )
            for item in root.findall('object')
        ]
    except ValueError as error:
        raise _other_format(file, error) from error
    if not all(name and all(map(math.isfinite, b)) for name, _, b in found):
        raise _other_format(file, 'a name is missing, or a box infinite')
    return found


def _other_format(file: Path, reason: object) -> UserError:
    return UserError(
        f'The annotation file {file} is not in the format of Pascal VOC '
        f'({reason}); expected object/name and object/bndbox/xmin to ymax '
        'for each object.'
    )


def _size(root: ET.Element, path: Path) -> tuple[int, int]:
    """(width, height) as annotated, else that of the image."""
    size = [root.findtext(f'size/{key}') or '' for key in ('width', 'height')]
    if all(text.isdecimal() and int(text) for text in size):
        return int(size[0]), int(size[1])
    return shown_size(path)
