# Copyright (c) mmdetr authors. All rights reserved.
"""Checks that enough of a dataset is left to train on."""

from collections.abc import Iterable

import numpy as np

from project.preflight import box_counts
from project.preflight.annotations import AnnotationFile
from project.preflight.box_counts import BoxCount
from project.preflight.coco_json import shortened_text
from project.preflight.dataset_report import DatasetReport

_NEXT_TO_NOTHING = 0.05
"""Share of the boxes, without crowds, that must be left."""
_MANY_REACH_OUT = 0.2
_EXPECTED = {
    box_counts.UNLISTED_IMAGE: "expected the 'id' of one of its images",
    box_counts.UNLISTED_CATEGORY: (
        "expected the 'id' of one of its categories"
    ),
    box_counts.CROWD: "expected 'iscrowd': 0 for single objects",
    box_counts.IGNORED: "expected 'ignore': 0 for objects to train on",
    box_counts.NO_AREA: (
        "expected 'area' in pixels, such as width times height"
    ),
}
_EXPECTED_BOX = 'expected [x, y, width, height] in pixels of its image'


def judge_training_boxes(
    report: DatasetReport, file: AnnotationFile, count: BoxCount
) -> None:
    """Report boxes that are left out; refuse if hardly any is left."""
    where = f'{report.source} ({report.name})'
    if not count.total:
        return
    if count.as_fractions:
        report.refuse(
            f'All boxes of {where} lie between 0 and 1, such as '
            f'{_example(file, int(count.kept.argmax()))}: they seem to be '
            f'fractions of their images; {_EXPECTED_BOX}.'
        )
        return
    told = f'{count.told()} (in {where})'
    usable = count.num_kept / max(count.num_candidates, 1)
    if not count.num_kept or usable < _NEXT_TO_NOTHING:
        left = count.num_kept or 'nothing'
        report.refuse(
            f'{told}, so {left} would be left to train on: '
            f'{_worst(file, count)}.'
        )
        return
    if count.faults:
        report.warn(f'{told}: {_worst(file, count)}.')
    _judge_corners(report, count, where)


def _worst(file: AnnotationFile, count: BoxCount) -> str:
    """Give an example of the most frequent fault."""
    left_out = dict(count.left_out)
    if len(left_out) > 1:  # crowds are usual
        left_out.pop(box_counts.CROWD, None)
    reason = max(left_out, key=left_out.__getitem__)
    expected = _EXPECTED.get(reason, _EXPECTED_BOX)
    example = _example(file, count.first[reason], reason)
    return f'{example}; {expected}'


def _example(file: AnnotationFile, index: int, reason: str = '') -> str:
    """Describe an annotation by what is wrong with it."""
    if reason == box_counts.UNLISTED_IMAGE:
        index = int((file.images < 0).argmax())
    if reason == box_counts.UNLISTED_CATEGORY:
        index = int((file.categories < 0).argmax())
    place = f'{file.place(index)} has '
    if reason == box_counts.UNLISTED_IMAGE:
        return f'{place}the image_id {file.unlisted["image_id"]}'
    if reason == box_counts.UNLISTED_CATEGORY:
        return f'{place}the category_id {file.unlisted["category_id"]}'
    if reason == box_counts.NO_AREA:
        return f'{place}the area {file.areas[index]:g}'
    if reason in (box_counts.CROWD, box_counts.IGNORED):
        key = 'iscrowd' if reason == box_counts.CROWD else 'ignore'
        return f'{place}{key!r}: 1'
    box = ', '.join(f'{value:g}' for value in file.boxes[index])
    text = f'{place}the bbox [{box}]'
    if reason == box_counts.OUTSIDE:
        width, height = file.sizes[file.images[index]]
        text += f' in an image of {width:g} x {height:g}'
    return shortened_text(text, 160)


def _judge_corners(report: DatasetReport, count: BoxCount, where: str) -> None:
    """Report boxes that reach out of their images."""
    share = count.reaching_out / max(count.num_candidates, 1)
    if share < _MANY_REACH_OUT:
        return
    corners = (
        ', and all would fit as [x1, y1, x2, y2]' if count.as_corners else ''
    )
    sentence = (
        f'{count.reaching_out:,} of {count.total:,} boxes of {where} reach '
        f'out of their images{corners}; expected [x, y, width, height] in '
        'pixels.'
    )
    # A few boxes may fit by chance.
    if count.as_corners and count.num_kept >= 20:
        report.refuse(sentence)
    else:
        report.warn(sentence)


def judge_images_left(
    report: DatasetReport, file: AnnotationFile, count: BoxCount
) -> None:
    """Refuse a dataset whose ``filter_cfg`` leaves no image."""
    filter_cfg = report.config.get('filter_cfg') or {}
    left = file.sizes.min(1) >= filter_cfg.get('min_size', 0)
    if filter_cfg.get('filter_empty_gt', False):
        with_class = count.labels >= 0
        chosen = file.images[with_class & (file.images >= 0)]
        has_boxes = np.zeros(len(left), bool)
        has_boxes[chosen] = True
        left &= has_boxes
    if not left.any():
        report.refuse(
            f'None of the {len(left):,} images of {report.source} is left: '
            f'the filter_cfg of {report.name} leaves out images without '
            'objects of the classes (filter_empty_gt) or smaller than '
            f'min_size; it is {dict(filter_cfg)}.'
        )


def judge_training_sets(reports: Iterable[DatasetReport]) -> None:
    """Refuse training sets if none of them has a box.

    One without objects is fine next to one with objects.

    Args:
        reports (Iterable[DatasetReport]): All training sets; the first one
            receives the finding.
    """
    reports = list(reports)
    # A dataset without a count may have boxes.
    if not reports or any(
        report.count is None or report.count.num_kept for report in reports
    ):
        return
    first = reports[0]
    if any(finding.is_fatal for r in reports for finding in r.findings):
        return
    first.refuse(
        f'The annotation file {first.source} of {first.name} has no '
        'annotations to train on'
        + (', nor has another training set.' if len(reports) > 1 else '.')
    )
