# Copyright (c) mmdetr authors. All rights reserved.
"""Writes COCO annotations of converted or split datasets."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from project.utils.errors import UserError


def shown_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image after the rotation in EXIF data.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).size
    except OSError as error:
        reason = error.strerror or 'it is broken, or no image'
        raise UserError(
            f'The image {path} cannot be read: {reason}.'
        ) from error


def write_annotations(content: dict, out: Path) -> None:
    """Write COCO annotations atomically.

    Args:
        content: With ``images``, ``annotations`` and ``categories``.
        out: File to write; its folder is made.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f'{out.name}.partial')
    partial.write_text(json.dumps(content), encoding='utf-8')
    os.replace(partial, out)


def split_annotations(
    content: dict, outs: Sequence[Path], share: float, seed: int
) -> None:
    """Split the images randomly into two files.

    Args:
        content: COCO annotations.
        outs: Files to write. The second gets ``share`` of the images, at
            least one. The order of the images is kept.
        share: A fraction from 0 to 1.
        seed: Random seed.

    Raises:
        UserError: If there are fewer than two images.
    """
    images = content['images']
    if len(images) < 2:
        raise UserError(
            f'{len(images)} image cannot be split into training and '
            'validation; expected two at least.'
        )
    count = min(max(1, round(len(images) * share)), len(images) - 1)
    chosen = set(random.Random(seed).sample(range(len(images)), count))
    for out, is_second in zip(outs, (False, True), strict=True):
        part = [
            image
            for index, image in enumerate(images)
            if (index in chosen) == is_second
        ]
        ids = {image['id'] for image in part}
        annotations = [
            annotation
            for annotation in content['annotations']
            if annotation['image_id'] in ids
        ]
        write_annotations(
            {**content, 'images': part, 'annotations': annotations}, out
        )
