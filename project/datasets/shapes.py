# Copyright (c) mmdetr authors. All rights reserved.
"""Writes the synthetic ``shapes`` dataset in COCO format.

It needs no download, so a detector can be trained and tested on any machine.
The same :class:`ShapesSpec` gives the same bytes, and an image depends only on
the seed, its split and its index, not on the number of images. Boxes and masks
cover the visible part of an object.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from project.datasets.shapes_scene import SHAPE_CLASSES, Scene, draw_scene
from project.utils.errors import UserError
from project.utils.settings import Range, read_setting

SPLITS = ('train', 'val')
MARKER = 'shapes.json'
"""File with the spec of a folder, which marks it as made here."""

_IMAGE_NAME = re.compile(r'\d{6,8}\.png')
_VERSION = 3  # to be raised when anything is drawn or written differently
_Images = Annotated[int, Range(1, 10_000_000)]


@dataclass(frozen=True)
class ShapesSpec:
    """What identifies a shapes dataset.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        size: Longest side of every image in pixels, 32 to 4096.
        seed: Seed of the whole set, 0 to 2**32 - 1.
    """

    train: _Images
    val: _Images
    size: Annotated[int, Range(32, 4096)] = 160
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            read_setting(field.type, value, f'shapes dataset: {field.name}')


def make_shapes(root: Path | str, spec: ShapesSpec) -> bool:
    """Write a dataset, unless it exists.

    The folder gets ``annotations/{train,val}.json``, images in ``train/`` and
    ``val/``, and ``shapes.json`` with the spec. It gets its name only when it
    is complete.

    Args:
        root: Folder of the dataset. A shapes dataset with another spec is
            replaced.
        spec: What to draw.

    Returns:
        True if the dataset was written, False if it existed.

    Raises:
        UserError: If ``root`` holds anything that was not made here, or
            cannot be written.
    """
    try:
        return _make_shapes(Path(root), spec)
    except OSError as error:
        raise UserError(
            f'{error.filename or root} cannot be written: {error.strerror}.'
        ) from error


def _make_shapes(root: Path, spec: ShapesSpec) -> bool:
    """Write a dataset unless it exists."""
    marker = {'version': _VERSION, **asdict(spec)}
    if _read_marker(root) == marker:
        return False
    partial = root.with_name(f'{root.name}.partial')
    _remove_own(partial)
    _refuse_foreign(root)
    partial.mkdir(parents=True)
    # First, to mark the folder of an interrupted run as made here.
    _write_json(partial / MARKER, marker)
    for split in SPLITS:
        _write_split(partial, spec, split)
    _remove_own(root)
    partial.rename(root)
    return True


def _read_marker(root: Path) -> Any:
    """Content of the marker file of a folder; None without one."""
    try:
        return json.loads((root / MARKER).read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _refuse_foreign(root: Path) -> None:
    """Raise if a folder holds anything but a shapes dataset."""
    if not root.exists() and not root.is_symlink():
        return
    if not root.is_dir():
        raise UserError(f'{root} is in the way: it is not a folder.')
    is_empty = not any(root.iterdir())
    stranger = _first_stranger(root)
    if not is_empty and (stranger or not (root / MARKER).is_file()):
        found = stranger or f'no {MARKER}'
        raise UserError(
            f'{root} was not made by the shapes generator (it has {found}), '
            f'so it is left alone: name another folder or remove it.'
        )


def _first_stranger(root: Path) -> str | None:
    """Path of a file that the generator does not write, if any."""
    annotations = {f'{split}.json' for split in SPLITS}
    for entry in sorted(root.rglob('*')):
        name = entry.relative_to(root)
        if entry.is_dir() and not entry.is_symlink():
            is_own = str(name) in {'annotations', *SPLITS}
        elif len(name.parts) == 2 and name.parts[0] in SPLITS:
            is_own = bool(_IMAGE_NAME.fullmatch(name.parts[1]))
        else:
            is_own = str(name) == MARKER or (
                name.parts[0] == 'annotations' and name.name in annotations
            )
        if not is_own:
            return str(name)
    return None


def _remove_own(root: Path) -> None:
    """Delete a shapes dataset; raise if it is anything else."""
    _refuse_foreign(root)
    if root.exists():
        shutil.rmtree(root)


def _write_split(root: Path, spec: ShapesSpec, split: str) -> None:
    """Draw the images of one split and write its annotation file."""
    (root / split).mkdir()
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(getattr(spec, split)):
        seed = [spec.seed, SPLITS.index(split), index]
        scene = draw_scene(spec.size, seed)
        height, width = scene.image.shape[:2]
        image = dict(
            id=index + 1,
            file_name=f'{index + 1:06d}.png',
            height=height,
            width=width,
        )
        _write_png(root / split / image['file_name'], scene.image)
        images.append(image)
        for annotation in _annotate(scene):
            annotation.update(id=len(annotations) + 1, image_id=image['id'])
            annotations.append(annotation)
    (root / 'annotations').mkdir(exist_ok=True)
    _write_json(
        root / 'annotations' / f'{split}.json',
        dict(
            info=dict(description='Synthetic shapes', **asdict(spec)),
            images=images,
            annotations=annotations,
            categories=[
                dict(id=i, name=name, supercategory='shape')
                for i, name in enumerate(SHAPE_CLASSES, start=1)
            ],
        ),
    )


def _annotate(scene: Scene) -> list[dict]:
    """COCO annotations without ids; boxes are (x, y, w, h) in pixels."""
    annotations = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        # Run-length encoding can represent holes, polygons cannot.
        encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append(
            dict(
                category_id=label + 1,
                bbox=coco_mask.toBbox(encoded).tolist(),
                area=int(coco_mask.area(encoded)),
                iscrowd=0,
                segmentation=dict(
                    size=list(mask.shape),
                    counts=encoded['counts'].decode('ascii'),
                ),
            )
        )
    return annotations


def _write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB pixels with fixed compression, so that bytes are equal."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    _, data = cv2.imencode('.png', image[..., ::-1], options)
    path.write_bytes(data.tobytes())


def _write_json(path: Path, content: dict) -> None:
    """Write compact json with unsorted keys."""
    text = json.dumps(content, separators=(',', ':'))
    path.write_text(text + '\n', encoding='utf-8')
