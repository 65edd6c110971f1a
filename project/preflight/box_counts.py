# Copyright (c) mmdetr authors. All rights reserved.
"""Counts the boxes that a dataset keeps, and why it drops the others."""

import contextlib
import io
import json
import math
import os.path as osp
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmdet.registry import DATASETS

from project.preflight.annotations import AnnotationFile

UNLISTED_IMAGE = 'of images that are not listed'
UNLISTED_CATEGORY = 'of categories that are not listed'
NOT_FINITE = 'NaN'
NO_SIDE = 'without a width or height'
OUTSIDE = 'outside their image'
NO_AREA = 'with an area of 0'
THIN = 'under a pixel wide or high'
IGNORED = "marked 'ignore'"
CROWD = 'crowds'

# One annotation for each reason, on an image of 64 x 64 pixels.
_PLAIN = dict(bbox=[8, 8, 20, 20], area=400, iscrowd=0)
_PROBES: dict[str, dict] = {
    NOT_FINITE: dict(bbox=[8, math.nan, 20, 20]),
    NO_SIDE: dict(bbox=[8, 8, 0, 20]),
    OUTSIDE: dict(bbox=[99, 8, 20, 20]),
    NO_AREA: dict(area=0),
    THIN: dict(bbox=[8, 8, 0.5, 20]),
    IGNORED: dict(ignore=1),
    CROWD: dict(iscrowd=1),
}
_PROBE_SIDE = 64
_SMALL, _LARGE = 32**2, 96**2


def ask_class(dataset: Mapping[str, Any], content: dict) -> list[dict] | None:
    """Have a dataset class load a small annotation file of ours.

    It shows what the class makes of file names and boxes, without reading the
    whole dataset.

    Returns:
        list[dict] | None: Its ``load_data_list()``; None if it fails.
    """
    config = dict(dataset, pipeline=[], lazy_init=True)
    config.pop('indices', None)
    with tempfile.TemporaryDirectory() as folder:
        config['ann_file'] = osp.join(folder, 'annotations.json')
        with open(config['ann_file'], 'w', encoding='utf-8') as file:
            file.write(json.dumps(content))  # faster than json.dump
        # pycocotools prints its progress.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                return DATASETS.build(config).load_data_list()
            except Exception:  # a user's class may raise anything
                return None


def left_out_reasons(
    dataset: Mapping[str, Any], file: AnnotationFile, classes: Sequence[str]
) -> set[str] | None:
    """Find out for which reasons a dataset class drops boxes.

    Args:
        dataset (Mapping): Config of the dataset.
        file (AnnotationFile): Its annotations.
        classes (Sequence[str]): Its classes.

    Returns:
        set[str] | None: The reasons; None if they cannot be determined.
    """
    known = [
        index
        for index, name in enumerate(file.category_names)
        if name in classes
    ]
    if not known:
        return None
    names = [None, *_PROBES]
    image = dict(
        file.sample['images'][0], width=_PROBE_SIDE, height=_PROBE_SIDE
    )
    content = dict(
        images=[dict(image, id=index) for index in range(len(names))],
        annotations=[
            dict(
                _PLAIN,
                **dict(id=index + 1, image_id=index),
                category_id=file.category_ids[known[0]],
            )
            | _PROBES.get(name or '', {})
            for index, name in enumerate(names)
        ],
        categories=file.sample['categories'],
    )
    answers = ask_class(dataset, content)
    if answers is None:
        return None
    try:
        kept = {
            names[answer['img_id']]
            for answer in answers
            if any(not i.get('ignore_flag') for i in answer['instances'])
        }
    except (AttributeError, IndexError, KeyError, TypeError):
        return None  # a user's class may have other keys
    return set(_PROBES) - kept if None in kept else None


@dataclass
class BoxCount:
    """Which boxes of a file are kept, and why the others are dropped.

    Attributes:
        total (int): Number of boxes of the classes or of unlisted categories.
        kept (ndarray): Which boxes of the file are kept, bool.
        labels (ndarray): Class index of each box of the file; -1 for none.
        left_out (dict[str, int]): Number of dropped boxes by reason.
        first (dict[str, int]): Index of the first box dropped for a reason.
        reaching_out (int): Boxes that exceed their image by over a pixel.
        as_fractions (bool): Whether the boxes look like fractions of images.
        as_corners (bool): Whether boxes exceed their images and all would fit
            as (x1, y1, x2, y2).
    """

    total: int
    kept: np.ndarray
    labels: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    reaching_out: int = 0
    as_fractions: bool = False
    as_corners: bool = False

    @property
    def num_kept(self) -> int:
        """Number of boxes that are kept."""
        return int(self.kept.sum())

    @property
    def num_candidates(self) -> int:
        """Number of boxes that would be kept if none had a fault."""
        no_fault = (UNLISTED_IMAGE, CROWD)
        return self.total - sum(self.left_out.get(key, 0) for key in no_fault)

    @property
    def faults(self) -> int:
        """Number of boxes that are dropped and are no crowds."""
        return sum(self.left_out.values()) - self.left_out.get(CROWD, 0)

    def told(self) -> str:
        """Describe the dropped boxes."""
        parts = sorted(self.left_out.items(), key=lambda item: -item[1])
        reasons = ', '.join(f'{count:,} {reason}' for reason, count in parts)
        left_out = sum(self.left_out.values())
        return f'{left_out:,} of {self.total:,} boxes are left out: {reasons}'


def count_boxes(
    file: AnnotationFile, classes: Sequence[str], reasons: set[str]
) -> BoxCount:
    """Count kept and dropped boxes.

    Args:
        file (AnnotationFile): The annotations.
        classes (Sequence[str]): Names of the classes.
        reasons (set[str]): Reasons to drop a box, besides an image or
            category that is not listed.
    """
    label_of = {name: index for index, name in enumerate(classes)}
    to_label = np.array(
        [label_of.get(name, -1) for name in file.category_names] + [-1]
    )
    labels = to_label[file.categories]
    left = (labels >= 0) | (file.categories < 0)
    count = BoxCount(total=int(left.sum()), kept=left, labels=labels)
    _look_for_other_formats(count, file, left & (file.images >= 0))
    for reason, applies in _faults(file).items():
        found = left & applies
        always = reason in (UNLISTED_IMAGE, UNLISTED_CATEGORY)
        if not found.any() or not (always or reason in reasons):
            continue
        count.left_out[reason] = int(found.sum())
        count.first[reason] = int(found.argmax())
        left = left & ~found
    count.kept = left
    return count


def _faults(file: AnnotationFile) -> dict[str, np.ndarray]:
    """Which annotations each reason applies to."""
    x, y, width, height = file.boxes.T
    # Index -1, no image, takes the size of the last one.
    image_width, image_height = file.sizes[file.images].T
    with np.errstate(invalid='ignore'):
        seen = np.minimum(x + width, image_width) > np.maximum(x, 0)
        seen &= np.minimum(y + height, image_height) > np.maximum(y, 0)
        return {
            UNLISTED_IMAGE: file.images < 0,
            UNLISTED_CATEGORY: file.categories < 0,
            NOT_FINITE: ~np.isfinite(file.boxes).all(1),
            NO_SIDE: (width <= 0) | (height <= 0),
            OUTSIDE: ~seen,
            NO_AREA: file.areas <= 0,
            THIN: (width < 1) | (height < 1),
            IGNORED: file.ignored == 1,
            CROWD: file.crowds == 1,
        }


def _look_for_other_formats(
    count: BoxCount, file: AnnotationFile, chosen: np.ndarray
) -> None:
    """Detect boxes given as fractions of images, or as two corners."""
    chosen = chosen & np.isfinite(file.boxes).all(1)
    chosen &= (file.boxes[:, 2:] > 0).all(1)
    if not chosen.any():
        return
    boxes, sizes = file.boxes[chosen], file.sizes[file.images[chosen]]
    ends = boxes[:, :2] + boxes[:, 2:]
    # Centres instead of corners are fractions as well.
    count.as_fractions = bool(
        (boxes <= 1).all()
        and (boxes >= 0).all()
        and (boxes % 1 > 0).any()
        and (sizes > 2).all()
    )
    out = ((ends > sizes + 1) | (boxes[:, :2] < -1)).any(1)
    count.reaching_out = int(out.sum())
    fits = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + 1)
    count.as_corners = bool(out.any() and fits.all())


def size_counts(areas: np.ndarray) -> tuple[int, ...]:
    """Count boxes by COCO's size ranges.

    Args:
        areas (ndarray): Areas in square pixels, shape (num,).

    Returns:
        tuple[int, int, int]: Number of small (below 32^2 pixels), medium and
        large ones (above 96^2 pixels).
    """
    small, large = (areas < _SMALL).sum(), (areas > _LARGE).sum()
    return int(small), int(len(areas) - small - large), int(large)
