# Copyright (c) mmdetr authors. All rights reserved.
"""Checks for pipelines that resize float images with Pillow."""

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import (
    LoadImageFromFile,
    RandomChoice,
    RandomChoiceResize,
    RandomResize,
)
from mmcv.transforms import Resize as MMCVResize
from mmdet.datasets.transforms import PhotoMetricDistortion
from mmdet.registry import TRANSFORMS
from mmengine.config import Config, ConfigDict

from project.datasets.transforms import AnyDepthResize
from project.preflight.config_tree import (
    is_a,
    is_known,
    leaf_pipelines,
    registered_class,
)
from project.utils.errors import UserError


def check_image_depth(cfg: Config, split: str) -> None:
    """Raise if a pipeline resizes float images with mmdet's Pillow backend.

    Raises:
        UserError: If a transform that returns floats precedes a resize
            that does not take them.
    """
    for name, _, transforms in leaf_pipelines(cfg, split):
        _check(name, transforms)


def _check(
    name: str, transforms: Sequence, maker: str | None = None
) -> str | None:
    """Check the transforms of one dataset in order.

    Returns:
        str | None: The transform after which the image holds floats, if any.
    """
    for part in transforms:
        if isinstance(part, (list, tuple)):
            maker = _check(name, part, maker)
        if not isinstance(part, dict):
            continue
        kind = registered_class(part, TRANSFORMS)
        inner = part.get('transforms') or ()
        if is_a(kind, RandomChoice):  # one of them
            ends = [_check(name, [choice], maker) for choice in inner]
            maker = next(filter(None, ends), None)
        elif is_known(kind):
            maker = _check(name, inner, maker)
        else:
            maker = None  # a user's transform may return 8 bits again
        if _makes_floats(part, kind):
            maker = part.get('type')
        elif maker and _needs_8_bits(part, kind):
            raise UserError(
                f'The pipeline of {name} resizes with Pillow after {maker}, '
                'whose images are floats, and mmdet stops at those: set '
                + _remedy(kind)
                + ' there, which gives the same pixels, or resize first.'
            )
    return maker


def _makes_floats(part: ConfigDict, kind: Any) -> bool:
    """Return whether a transform returns float images."""
    loads = is_a(kind, LoadImageFromFile) and part.get('to_float32', False)
    return loads or is_a(kind, PhotoMetricDistortion)


def _needs_8_bits(part: ConfigDict, kind: Any) -> bool:
    """Return whether a resize takes 8-bit images only."""
    if part.get('backend') != 'pillow':
        return False
    if is_a(kind, (RandomChoiceResize, RandomResize)):
        inner = dict(type=part.get('resize_type', 'Resize'))
        kind = registered_class(inner, TRANSFORMS)
    return is_a(kind, MMCVResize) and not is_a(kind, AnyDepthResize)


def _remedy(kind: Any) -> str:
    """Name the setting that resizes floats."""
    chooses = is_a(kind, (RandomChoiceResize, RandomResize))
    return f"{'resize_type' if chooses else 'type'}='AnyDepthResize'"
