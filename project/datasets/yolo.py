# Copyright (c) mmdetr authors. All rights reserved.
"""Converts datasets in YOLO's format to COCO annotations."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from project.datasets.coco_writing import shown_size, write_annotations
from project.utils.errors import UserError

IMAGE_ENDINGS = (
    '.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff',
)  # fmt: skip
"""How the names of image files end, in small letters."""


def convert(root: Path, split: str, out: Path) -> dict[str, int]:
    """Write the COCO annotations of a split.

    Args:
        root: Folder of the dataset, with ``data.yaml``.
        split: Such as ``train``.
        out: File to write, which must not exist.

    Returns:
        Numbers of ``images``, ``annotations`` and ``categories``.

    Raises:
        UserError: If files are missing or are not in YOLO's format, or
            ``out`` exists.
    """
    if out.exists():
        raise UserError(
            f'{out} exists and is left as it is: remove it to make it anew.'
        )
    names = read_names(root)
    images: list[dict] = []
    annotations: list[dict] = []
    folder = image_folder(root, split)
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        size = shown_size(path)
        images.append(
            dict(
                id=len(images) + 1,
                file_name=path.relative_to(folder).as_posix(),
                width=size[0],
                height=size[1],
            )
        )
        label = label_path(folder, path)
        for category, box in read_boxes(label, len(names)):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    category_id=category,
                    **_in_pixels(box, size),
                    iscrowd=0,
                )
            )
    if not images:
        raise UserError(f'{folder} holds no images.')
    categories = [dict(id=i, name=name) for i, name in enumerate(names)]
    content = dict(
        images=images, annotations=annotations, categories=categories
    )
    write_annotations(content, out)
    return {key: len(value) for key, value in content.items()}


def _in_pixels(box: Sequence[float], size: tuple[int, int]) -> dict:
    """COCO's ``bbox`` and ``area`` of a box that is relative to its image."""
    x, y, w, h = (v * side for v, side in zip(box, size * 2, strict=True))
    return dict(bbox=[x - w / 2, y - h / 2, w, h], area=w * h)


def read_names(root: Path) -> list[str]:
    """Read the names of the classes.

    Returns:
        Names in the order of their ids.

    Raises:
        UserError: If there is no yaml file with ``names``.
    """
    files = sorted(root.glob('*.yaml'), key=lambda p: p.name != 'data.yaml')
    for path in files:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        names = content.get('names') if isinstance(content, dict) else None
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names)]
        if isinstance(names, list) and names:
            return list(map(str, names))
    raise UserError(
        f"{root} has no data.yaml with 'names'; expected a line such as "
        "names: ['cat', 'dog']."
    )


def image_folder(root: Path, split: str) -> Path:
    """Find the images of a split.

    Raises:
        UserError: If there is none.
    """
    for folder in (root / 'images' / split, root / split / 'images'):
        if folder.is_dir():
            return folder
    raise UserError(
        f'Neither {root}/images/{split} nor {root}/{split}/images exists.'
    )


def label_path(folder: Path, image: Path) -> Path:
    """Path of the text file with the boxes of an image.

    An image without objects need not have it.
    """
    parts = list(folder.parts)
    last = len(parts) - 1 - parts[::-1].index('images')
    parts[last] = 'labels'
    return Path(*parts) / image.relative_to(folder).with_suffix('.txt')


def read_boxes(
    path: Path, num_classes: int
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Read the boxes of an image.

    Yields:
        Class and (cx, cy, w, h) in [0, 1]; for polygons their bounding box.

    Raises:
        UserError: If a line has another format.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            first, *rest = map(float, line.split())
        except ValueError:
            first, rest = -1.0, []
        is_box = len(rest) == 4
        is_polygon = len(rest) >= 6 and len(rest) % 2 == 0
        in_range = first in range(num_classes) and all(
            0 <= value <= 1 for value in rest
        )
        if not (is_box or is_polygon) or not in_range:
            raise UserError(
                f'Line {number} of {path} is {line[:80]!r}; expected a class '
                f'from 0 to {num_classes - 1} and cx cy w h (or the corners '
                'of a polygon) between 0 and 1.'
            )
        yield int(first), tuple(rest) if is_box else _around(rest)


def _around(polygon: Sequence[float]) -> tuple[float, ...]:
    """Bounding box of a polygon."""
    xs, ys = polygon[::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
