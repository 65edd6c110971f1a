# Copyright (c) mmdetr authors. All rights reserved.
"""Checks image files: whether they can be read, and their sizes."""

from collections.abc import Mapping, Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

from project.preflight.config_tree import (
    is_a,
    nested_transforms,
    registered_class,
)
from project.preflight.dataset_report import DatasetReport
from project.preflight.image_files import (
    CUT_OFF,
    EMPTY,
    MISSING,
    ImageFiles,
)

_MANY = 0.05
"""Share of images with another size than annotated that is no accident."""
_UNTURNED = ('unchanged', 'color_ignore_orientation',
             'grayscale_ignore_orientation')  # fmt: skip


def judge_images(report: DatasetReport, images: ImageFiles) -> None:
    """Report images that are missing, broken or of another size."""
    loader = _loader(report.transforms)
    if loader is None:
        return  # the images may come from anywhere
    missing = images.with_fault(MISSING)
    if missing:
        first, share = missing[0], _share(len(missing), images)
        _judge(
            report,
            len(missing),
            f'The image {report.names[first]}, which {report.source} names, '
            f'is not in the image folder {report.folder} of {report.name}'
            f'{f" ({share} are missing)" if len(missing) > 1 else ""}',
        )
        return
    by_opencv = registered_class(loader, TRANSFORMS) is LoadImageFromFile and (
        loader.get('imdecode_backend') in (None, 'cv2')
    )
    _judge_broken(report, images, by_opencv)
    if report.sizes is not None:
        _judge_sizes(report, images, loader)


def _loader(transforms: Sequence) -> Mapping | None:
    """Find the transform that loads the images; None if it is not mmcv's.

    A dataset without a pipeline has mmcv's.
    """
    default = dict(type=LoadImageFromFile)
    parts = list(nested_transforms(transforms)) if transforms else [default]
    loaders = (
        part
        for part in parts
        if is_a(registered_class(part, TRANSFORMS), LoadImageFromFile)
    )
    return next(loaders, None)


def _judge_broken(
    report: DatasetReport, images: ImageFiles, by_opencv: bool
) -> None:
    """Report files that cannot be read, as far as that is known."""
    cut_off = images.with_fault(CUT_OFF) if by_opencv else []
    broken = images.with_fault(EMPTY)
    if by_opencv:
        broken = sorted(set(images.with_fault()) - set(cut_off))
    if broken:
        first = broken[0]
        _judge(
            report,
            len(broken),
            f'The image {images.paths[first]} of {report.name} is '
            f'{images.fault(first)}'
            f'{_others(len(broken), images, "cannot be read")}',
        )
    if cut_off:
        report.warn(
            f'The image {images.paths[cut_off[0]]} of {report.name} is cut '
            'off, and its lower rows will be grey'
            f'{_others(len(cut_off), images, "are cut off")}.'
        )


def _judge(report: DatasetReport, count: int, sentence: str) -> None:
    """Refuse the dataset, unless a training may skip so many images."""
    if report.split != 'train':
        report.refuse(
            f'{sentence}; put a whole image there or take it out of the '
            'annotations.'
        )
    elif count <= report.max_broken:
        report.warn(f'{sentence}; the training skips what it cannot read.')
    else:
        report.refuse(
            f'{sentence}; put a whole image there, take it out of the '
            'annotations, or train without it with --cfg-options '
            f'max_broken_images={count}.'
        )


def _share(count: int, images: ImageFiles) -> str:
    return f'{count:,} of {int(images.seen.sum()):,} images'


def _others(count: int, images: ImageFiles, what: str) -> str:
    return f' ({_share(count, images)} {what})' if count > 1 else ''


def _is_turned(loader: Mapping) -> bool:
    """Return whether the loader applies the rotation in EXIF data."""
    backend = loader.get('imdecode_backend')
    return not (
        loader.get('color_type') in _UNTURNED or backend == 'turbojpeg'
    )


def _judge_sizes(
    report: DatasetReport, images: ImageFiles, loader: Mapping
) -> None:
    """Compare the sizes in the annotations with those of the images."""
    turned = _is_turned(loader)
    shown = images.shown_sizes if turned else images.sizes
    readable = images.seen & (images.sizes > 0).all(1)
    differs = readable & (shown != report.sizes).any(1)
    if not differs.any():
        return
    swapped = differs & (shown[:, ::-1] == report.sizes).all(1)
    by_exif = swapped & (images.turns >= 5) & turned
    scaled = differs & ~swapped & _is_scaled(shown, report.sizes)
    kinds = (
        (by_exif, 'stored, but EXIF data turns the image by 90 degrees when '
         'it is loaded, unlike its boxes'),
        (swapped & ~by_exif, 'with width and height exchanged'),
        (scaled, 'of another resolution'),
        (differs & ~swapped & ~scaled, 'of another image'),
    )  # fmt: skip
    for chosen, what in kinds:
        _tell_sizes(report, images, shown, np.flatnonzero(chosen), what)


def _tell_sizes(
    report: DatasetReport,
    images: ImageFiles,
    shown: np.ndarray,
    chosen: np.ndarray,
    what: str,
) -> None:
    """Report images whose sizes differ in one way."""
    if not len(chosen):
        return
    first = chosen[0]
    width, height = report.sizes[first]
    sentence = (
        f'{report.source} says that {report.names[first]} is {width:g} x '
        f'{height:g}, but the image is loaded as {shown[first][0]} x '
        f'{shown[first][1]}: a size {what} '
        f'({_share(len(chosen), images)} of {report.name}); expected width '
        'and height, and boxes, of the image as it is loaded.'
    )
    seen = int(images.seen.sum())
    can_tell = 'another image' not in what or _loses_boxes(
        report, images, chosen
    )
    if can_tell and len(chosen) >= _MANY * seen:
        report.refuse(sentence)
    else:
        report.warn(sentence)


def _loses_boxes(
    report: DatasetReport, images: ImageFiles, chosen: np.ndarray
) -> bool:
    """Return whether boxes of these images reach out of them."""
    file = report.file
    if file is None or not report.every_image:
        return False
    of_these = np.isin(file.images, chosen) & (file.images >= 0)
    ends = file.boxes[of_these, :2] + file.boxes[of_these, 2:]
    shown = images.shown_sizes[file.images[of_these]]
    return bool((ends > shown + 1).any())


def _is_scaled(shown: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return whether sizes differ by a factor, up to a pixel."""
    factor = sizes[:, 0] / np.maximum(shown[:, 0], 1)
    error = np.abs(sizes[:, 1] - shown[:, 1] * factor)
    # One or two pixels are rounding, not another resolution.
    near = (np.abs(sizes - shown) <= 2).all(1)
    return (error <= np.maximum(factor, 1) + 0.5) & ~near
