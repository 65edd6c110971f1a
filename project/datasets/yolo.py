# Copyright (c) mmdetr authors. All rights reserved.
"""Converts datasets in YOLO's format to COCO annotations."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from project.datasets.coco_writing import shown_size, write_annotations
from project.utils.errors import UserError

IMAGE_ENDINGS = (
    '.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff',
)  # fmt: skip
"""How the names of image files end, in small letters."""


@dataclass(frozen=True)
class Images:
    """The images of a split.

    Attributes:
        folder: The folder that their names in COCO annotations start from.
        files: Their paths, below it.
    """

    folder: Path
    files: list[Path]


def convert(root: Path, split: Images, out: Path) -> dict[str, int]:
    """Write the COCO annotations of a split.

    Args:
        root: Folder of the dataset, with ``data.yaml``.
        split: Its images, from :func:`find_images`.
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
    for path in split.files:
        size = shown_size(path)
        images.append(
            dict(
                id=len(images) + 1,
                file_name=path.relative_to(split.folder).as_posix(),
                width=size[0],
                height=size[1],
            )
        )
        for category, box in read_boxes(label_path(path), len(names)):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    category_id=category,
                    **_in_pixels(box, size),
                    iscrowd=0,
                )
            )
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
        UserError: If there is no yaml file with ``names``, or it names
            another number of classes than it says with ``nc``.
    """
    path, content = _read_settings(root)
    names = content.get('names')
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(
                f'{path} numbers its names {list(names)}; expected 0 to '
                f'{len(names) - 1}.'
            )
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{root} has no data.yaml with 'names'; expected a line such as "
            "names: ['cat', 'dog']."
        )
    if (count := content.get('nc', len(names))) != len(names):
        raise UserError(
            f'{path} has nc: {count} and names {len(names)} classes; expected '
            'the same number.'
        )
    return list(map(str, names))


def _read_settings(root: Path) -> tuple[Path | None, dict]:
    """Read ``data.yaml``, or another yaml file that names classes."""
    files = sorted(root.glob('*.yaml'), key=lambda p: p.name != 'data.yaml')
    for path in files:
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = ' '.join(str(error).split())
            raise UserError(
                f'{path} cannot be read as YAML: {reason}.'
            ) from error
        if isinstance(content, dict) and content.get('names'):
            return path, content
    return None, {}


def find_images(root: Path, names: Sequence[str]) -> Images | None:
    """Find the images of a split.

    They are those that ``data.yaml`` names, in folders or in lists, else
    those in the folder of the split.

    Args:
        root: Folder of the dataset.
        names: What the split may be called, such as ``val`` and ``valid``.

    Returns:
        None if there is no such split.

    Raises:
        UserError: If a folder holds no image, a list is empty, or some of
            what data.yaml names does not exist.
    """
    _, settings = _read_settings(root)
    entries = _named(settings, names)
    named = [_existing(root, settings, entry) for entry in entries]
    places = [place for place in named if place]
    if places and len(places) < len(named):
        missing = entries[named.index(None)]
        raise UserError(
            f'{root}: data.yaml names {missing} as {names[0]}, which does not '
            'exist; expected a folder or a list of images.'
        )
    if not places:  # or they are those of another machine
        places = [
            folder
            for name in names
            for folder in (root / 'images' / name, root / name / 'images')
            if folder.is_dir()
        ][:1]
    if not places:
        return None
    lists = [_images_of(root, place) for place in places]
    files = list(dict.fromkeys(itertools.chain(*lists)))
    if len(places) == 1 and places[0].is_dir():
        return Images(places[0], files)
    folders = [str(path.parent) for path in (root / 'x', *files)]
    return Images(Path(os.path.commonpath(folders)), files)


def named_images(root: Path, names: Sequence[str]) -> list[str]:
    """Read what ``data.yaml`` names as the images of a split.

    Args:
        root: Folder of the dataset.
        names: As in :func:`find_images`.

    Returns:
        Folders and lists, as they are written; empty if it names none.
    """
    _, settings = _read_settings(root)
    return _named(settings, names)


def _named(settings: dict, names: Sequence[str]) -> list[str]:
    given: Any = next((settings[x] for x in names if settings.get(x)), [])
    return list(map(str, given if isinstance(given, list) else [given]))


def _existing(root: Path, settings: dict, entry: str) -> Path | None:
    """Find the folder or list that ``data.yaml`` names.

    Its paths are often those of another machine, or begin outside the
    dataset's folder, as in Roboflow's exports.
    """
    base = Path(str(settings.get('path') or '.'))
    inside = Path(*(part for part in Path(entry).parts if part != '..'))
    for path in (root / inside, root / base / entry, root / entry):
        if path.exists():
            return Path(os.path.normpath(path))
    return None


def _images_of(root: Path, place: Path) -> list[Path]:
    """List the images of a folder, or those in a file with one per line."""
    if place.is_dir():
        found = [
            path
            for path in sorted(place.rglob('*'))
            if path.suffix.lower() in IMAGE_ENDINGS
        ]
    else:
        lines = place.read_text(encoding='utf-8').splitlines()
        stripped = filter(None, map(str.strip, lines))
        found = [_listed(line, place.parent, root) for line in stripped]
    if not found:
        raise UserError(f'{place} holds no images.')
    return [Path(os.path.normpath(path)) for path in found]


def _listed(line: str, folder: Path, root: Path) -> Path:
    """Path of an image in a list, from the list's folder or the dataset's."""
    below, other = folder / line, root / line
    return other if other.is_file() and not below.is_file() else below


def label_path(image: Path) -> Path:
    """Path of the text file with the boxes of an image.

    It is in the folder ``labels`` where the image is in ``images``, else
    beside the image. An image without objects need not have it.
    """
    beside = image.with_suffix('.txt')
    parts = list(beside.parts)
    if 'images' not in parts:
        return beside
    parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
    path = Path(*parts)
    return beside if beside.is_file() and not path.is_file() else path


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
