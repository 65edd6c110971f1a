# Copyright (c) mmdetr authors. All rights reserved.
"""Checks datasets in Pascal VOC's format."""

import os.path as osp
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from mmdet.datasets import XMLDataset

from project.preflight.box_counts import size_counts
from project.preflight.coco_json import shortened
from project.preflight.dataset_report import DatasetReport
from project.preflight.image_files import look_at_images
from project.utils.errors import UserError, most_alike

_BUDGET = 20.0  # seconds for the files of one dataset
# Similarity of a misspelt name: 'dogg' and 'dog' pass, 'car' and 'cat' do not.
_MISSPELT = 0.8
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


@dataclass
class VocAnnotations:
    """Statistics of the annotations of a dataset.

    Attributes:
        num_files (int): Number of files read.
        names (Counter): Number of objects by class name.
        kept (Counter): Likewise, of the classes in use and not difficult.
        areas (list[float]): Areas of the kept objects.
        without_boxes (int): Number of images without kept objects.
        sizes (list): (width, height) of each image; NaN if not given.
    """

    num_files: int = 0
    names: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)
    areas: list[float] = field(default_factory=list)
    without_boxes: int = 0
    sizes: list[tuple[float, float]] = field(default_factory=list)


def look_at_voc(report: DatasetReport) -> None:
    """Read and check the annotations of an ``XMLDataset``.

    Raises:
        UserError: If a file is missing or cannot be read.
    """
    if report.dataset_class.load_data_list is not XMLDataset.load_data_list:
        return  # a user's class may have another layout
    config = report.config
    prefix = (config.get('data_prefix') or {}).get('sub_data_root')
    if prefix is None:
        return  # the folder is unknown
    root = osp.join(config.get('data_root') or '', prefix)
    ids = _read_list(report)
    images = config.get('img_subdir', 'JPEGImages')
    report.folder = osp.join(root, images)
    report.names = [f'{name}.jpg' for name in ids]
    folder = osp.join(root, config.get('ann_subdir', 'Annotations'))
    found = _read_files(report, folder, ids)
    report.sizes = np.array(found.sizes).reshape(-1, 2)
    report.names = report.names[: found.num_files]
    report.images = look_at_images(
        [osp.join(report.folder, name) for name in report.names]
    )
    unsaid = np.isnan(report.sizes)
    shown = report.images.shown_sizes
    report.sizes = np.where(unsaid, shown, report.sizes)
    report.boxes_of = {name: found.kept[name] for name in report.classes}
    report.box_sizes = size_counts(np.array(found.areas))
    report.without_boxes = found.without_boxes
    _judge_names(report, found)


def _read_list(report: DatasetReport) -> list[str]:
    """Read the image ids of the set."""
    path = report.source
    try:
        with open(path, encoding='utf-8') as file:
            ids = [line.rstrip('\n\r') for line in file]
    except (OSError, ValueError) as error:
        raise UserError(
            f'The list of images {path} of {report.name} cannot be read: '
            f'{getattr(error, "strerror", None) or error}; expected a text '
            'file with the name of an image, without its ending, in each '
            'line.'
        ) from error
    if not ids:
        raise UserError(
            f'The list of images {path} of {report.name} is empty.'
        )
    return ids


def _read_files(
    report: DatasetReport, folder: str, ids: list[str]
) -> VocAnnotations:
    """Read the files until the time is up."""
    found, deadline = VocAnnotations(), time.monotonic() + _BUDGET
    for name in ids:
        path = osp.join(folder, f'{name}.xml')
        try:
            _read_file(path, report, found)
        except OSError as error:
            raise UserError(
                f'The annotation file {path}, which {report.source} lists, '
                f'cannot be read: {error.strerror}.'
            ) from error
        except (ET.ParseError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f'The annotation file {path} is not in the format of Pascal '
                f'VOC ({error}); expected size/width, size/height, and '
                'object/name and object/bndbox/xmin to ymax for each object.'
            ) from error
        found.num_files += 1
        if time.monotonic() > deadline:
            break
    return found


def _read_file(
    path: str, report: DatasetReport, found: VocAnnotations
) -> None:
    """Read one file as ``XMLDataset`` does."""
    root = ET.parse(path).getroot()
    size = root.find('size')
    found.sizes.append(
        (np.nan, np.nan)
        if size is None
        else (int(_text(size, 'width')), int(_text(size, 'height')))
    )
    before = len(found.areas)
    for item in root.findall('object'):
        name = _text(item, 'name')
        found.names[name] += 1
        box = [
            int(float(_text(item, f'bndbox/{corner}'))) for corner in _CORNERS
        ]
        is_difficult = int(item.findtext('difficult', '0'))
        if name not in report.classes or is_difficult:
            continue
        found.kept[name] += 1
        width, height = box[2] - box[0], box[3] - box[1]
        found.areas.append(max(width, 0) * max(height, 0))
    found.without_boxes += len(found.areas) == before


def _text(element: ET.Element, path: str) -> str:
    """Read the text of a child that every file must have."""
    text = element.findtext(path)
    if text is None:
        raise ValueError(f'there is no {path} in {element.tag}')
    return text


def _judge_names(report: DatasetReport, found: VocAnnotations) -> None:
    """Compare the names of the objects with the classes."""
    names, where = found.names, f'{report.source} ({report.name})'
    strange = [name for name in names if name not in report.classes]
    absent = [name for name in report.classes if name not in names]
    total = sum(names.values())
    alike = {
        name: close[0]
        for name in absent
        if (close := most_alike(name, map(str, strange), 1, _MISSPELT))
    }
    if alike:
        pairs = ', '.join(f'{b!r} for {a!r}' for a, b in alike.items())
        report.refuse(
            f'No object of {where} is of the class '
            f'{shortened(alike)}; did you mean {pairs}? The names there are '
            f'{shortened(names)}.'
        )
    elif report.split == 'train' and not found.kept:
        report.refuse(
            f'None of the {total:,} objects of {where} is left to train on: '
            f'their names are {shortened(names)}, and classes are '
            f'{shortened(report.classes)}; difficult ones do not count.'
        )
    elif absent:
        report.warn(
            f'No object of {where} is of the class {shortened(absent)}.'
        )
    if strange and not alike:
        count = sum(names[name] for name in strange)
        report.warn(
            f'{count:,} of {total:,} boxes are left out: of '
            f'{shortened(strange)}, which are not among the classes (in '
            f'{where}).'
        )
    flat = found.areas.count(0)
    if flat:
        report.warn(
            f'{flat:,} of {total:,} boxes of {where} have no width or '
            'height; expected xmin below xmax and ymin below ymax.'
        )
