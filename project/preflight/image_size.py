# Copyright (c) mmdetr authors. All rights reserved.
"""Scales all pipelines of a config to another image size."""

import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict

from project.preflight.config_tree import (
    SPLITS,
    leaf_pipelines,
    named_dicts,
    nested_transforms,
)
from project.utils.errors import UserError

_SIZED = re.compile(r'Resize|Crop|Pad$')
_KEYS = ('scale', 'scales', 'crop_size', 'size')
_SMALLEST = 32  # the stride of the last stage of a backbone


def set_image_size(content: ConfigDict, size: Any) -> None:
    """Set ``image_size`` and scale the sizes of all pipelines with it.

    Args:
        content (ConfigDict): A complete config; changed in place.
        size (int | None): Short side of an image in testing, in pixels; None
            changes nothing. A tuple is taken for an unrelated variable.

    Raises:
        UserError: If it is no such number, or the test pipeline has no fixed
            size.
    """
    content.image_size = size
    if size is None or isinstance(size, (tuple, list)):
        return
    if not isinstance(size, int) or size < _SMALLEST:
        raise UserError(
            f'image_size is {size!r}; expected the short side of an image in '
            f'pixels, {_SMALLEST} or more.'
        )
    current = _short_side(content)
    if current == size:
        return
    # A dict may stand in several places.
    parts = {id(part): part for part in _sized(content)}
    for part in parts.values():
        for key in _KEYS:
            if key in part:
                part[key] = _scaled(part[key], size / current)


def _short_side(content: ConfigDict) -> int:
    """Read the short side of images in testing."""
    for split in ('test', 'val'):
        for _, _, transforms in leaf_pipelines(content, split):
            for part in nested_transforms(transforms):
                scale = part.get('scale')
                if 'Resize' in str(part.get('type')) and scale:
                    return min(scale)
    raise UserError(
        'image_size has no effect: no transform of test_dataloader resizes '
        'images to a scale; set the sizes in the pipelines.'
    )


def _sized(content: ConfigDict) -> Iterator[dict]:
    """Yield the transforms with a size, also those that a hook switches to."""
    for key in (*(f'{split}_dataloader' for split in SPLITS), 'custom_hooks'):
        for _, part in named_dicts(content.get(key), key):
            name = part.get('type')
            if isinstance(name, str) and _SIZED.search(name):
                yield part


def _scaled(value: Any, ratio: float) -> Any:
    """Scale numbers of pixels; keep fractions."""
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(v, ratio) for v in value)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 1:
        return value
    return max(1, round(value * ratio))
