# Copyright (c) mmdetr authors. All rights reserved.
"""Checks datasets that read a COCO json."""

import os.path as osp
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from mmdet.datasets import CocoDataset, LVISV05Dataset, LVISV1Dataset

from project.preflight.annotations import AnnotationFile
from project.preflight.box_counts import (
    CROWD,
    BoxCount,
    ask_class,
    count_boxes,
    left_out_reasons,
    size_counts,
)
from project.preflight.coco_json import shortened
from project.preflight.config_tree import is_a, nested_dicts
from project.preflight.dataset_formats import recognised
from project.preflight.dataset_report import DatasetReport
from project.preflight.image_files import look_at_images
from project.preflight.masks import mask_problem
from project.preflight.training_boxes import (
    judge_images_left,
    judge_training_boxes,
)
from project.utils.errors import UserError


def look_at_coco(
    report: DatasetReport, read: Callable[[str], AnnotationFile]
) -> None:
    """Read and check the annotations of a ``CocoDataset``.

    Raises:
        UserError: If files are missing, cannot be read or do not fit the
            classes.
    """
    path = report.source
    if not osp.isfile(path):
        hint = recognised(report.config.get('data_root') or osp.dirname(path))
        raise UserError(
            f'The annotation file {path} of {report.name} does not exist'
            f'{hint}.'
        )
    report.file = file = read(path)
    if not osp.isdir(report.folder):
        raise UserError(
            f'The image folder {report.folder} of {report.name} does not '
            'exist.'
        )
    # Other classes may number the labels differently.
    if _is_plain(report):
        _check_classes(file, report.classes)
    _count(report, file)
    _find_images(report, file)


def _is_plain(report: DatasetReport) -> bool:
    """Return whether labels and image paths are those of mmdet's class."""
    found = report.dataset_class.load_data_list
    return found is CocoDataset.load_data_list


def _check_classes(file: AnnotationFile, classes: tuple[str, ...]) -> None:
    """Raise if labels would not be indices into the classes.

    mmdet numbers labels in the order of those categories of the file that are
    among the classes. A class that is missing or in another position shifts
    all labels after it silently.
    """
    present = tuple(n for n in file.category_names if n in classes)
    if present == classes:
        return
    missing = [name for name in classes if name not in present]
    if missing:
        raise UserError(
            f'{file.path} has {len(set(present))} of the {len(classes)} '
            f'classes of the config ({shortened(missing)} missing); set '
            'classes to names of its categories: '
            f'{shortened(file.category_names)}.'
        )
    twice = next((n for n in present if present.count(n) > 1), None)
    if twice is not None:
        ids = [
            index
            for index, name in zip(
                file.category_ids, file.category_names, strict=True
            )
            if name == twice
        ]
        raise UserError(
            f'{file.path} has {len(ids)} categories of the name {twice!r} '
            f'(ids {", ".join(map(str, ids))}), and each would be a class; '
            'expected different names: give its annotations one category_id, '
            'or one of the categories another name.'
        )
    raise UserError(
        f'The classes of the config are not in the order of the categories '
        f'of {file.path}, by which the labels are numbered; write '
        f'classes={present}.'
    )


def _count(report: DatasetReport, file: AnnotationFile) -> None:
    """Count the boxes and judge those left for training."""
    if not report.classes:
        return  # they are read from a file
    reasons = left_out_reasons(report.config, file, report.classes)
    if reasons is None:
        if is_a(report.dataset_class, (LVISV05Dataset, LVISV1Dataset)):
            _tell_lvis(report)
        return
    if report.split != 'train':
        reasons = {CROWD}  # evaluation counts all others
    report.count = count = count_boxes(file, report.classes, reasons)
    _summarise(report, file, count)
    if report.split != 'train':
        return
    judge_training_boxes(report, file, count)
    judge_images_left(report, file, count)
    parts = nested_dicts(report.transforms)
    if any(part.get('with_mask') for part in parts):
        problem = mask_problem(
            file,
            count.kept,
            report.classes,
            f'the pipeline of {report.name} loads masks (with_mask=True)',
        )
        if problem:
            report.refuse(problem)


def _summarise(
    report: DatasetReport, file: AnnotationFile, count: BoxCount
) -> None:
    """Count the kept boxes by class, size and image."""
    kept = count.kept
    numbers = np.bincount(count.labels[kept], minlength=len(report.classes))
    report.boxes_of = dict(zip(report.classes, numbers.tolist(), strict=True))
    report.box_sizes = size_counts(file.areas[kept])
    with_boxes = np.count_nonzero(np.bincount(file.images[kept]))
    report.without_boxes = len(file.image_ids) - with_boxes


def _tell_lvis(report: DatasetReport) -> None:
    """Name the package that LVIS needs."""
    if find_spec('lvis') is None:
        report.warn(
            f'{report.dataset_class.__name__} of {report.name} needs the '
            'package lvis, which is not installed: pip install lvis.'
        )


def _find_images(report: DatasetReport, file: AnnotationFile) -> None:
    """Look at all images, or at a sample if the class makes up their paths."""
    sample = file.sample['images']
    answers = ask_class(report.config, file.sample)
    if answers is None:
        if _is_plain(report):
            _check_named(file)
        return
    try:
        found = [answer['img_path'] for answer in answers]
        sizes = [(answer['width'], answer['height']) for answer in answers]
    except (KeyError, TypeError):
        return  # a class of the user's own has other keys
    plain = [
        osp.join(report.folder, image.get('file_name', '')) for image in sample
    ]
    if set(found) == set(plain):
        _check_named(file)
        report.names, report.sizes = file.names, file.sizes
        paths = [osp.join(report.folder, name) for name in file.names]
        report.every_image = True
    else:
        report.names = [osp.relpath(path, report.folder) for path in found]
        report.sizes = np.array(sizes)
        paths = found
    report.images = look_at_images(paths)


def _check_named(file: AnnotationFile) -> None:
    """Raise if an image has no name where the class needs it."""
    if '' in file.names:
        index = file.names.index('')
        raise UserError(
            f"One of the images of {file.path} has no 'file_name' (in "
            f'images[{index}]); expected the path of its file in the image '
            'folder.'
        )
