# Copyright (c) mmdetr authors. All rights reserved.
"""What an exported file says about itself."""

import json
from typing import Any

from mmcv.transforms import LoadAnnotations, LoadImageFromFile, Resize
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

from project.apis.detectors import Detector
from project.datasets.transforms.detr_resize import DETRResize
from project.preflight.config_tree import is_a, leaf_pipelines, registered
from project.utils.errors import UserError
from project.version import __version__

_LEFT_OUT = (LoadAnnotations, LoadImageFromFile)
_PACKS = ('PackDetInputs',)


def describe(detector: Detector) -> dict[str, str]:
    """Describe a detector for those who run its file.

    Args:
        detector (Detector): The detector.

    Returns:
        dict[str, str]: The metadata of the file: ``classes``, the names in
        JSON; ``preprocessing``, see :func:`preprocessing`, in JSON; ``model``
        and ``mmdetr_version``.

    Raises:
        UserError: If its test pipeline has a transform that the file cannot
            describe.
    """
    return dict(
        classes=json.dumps(list(detector.classes)),
        preprocessing=json.dumps(preprocessing(detector.config)),
        model=type(detector.model).__name__,
        mmdetr_version=__version__,
    )


def preprocessing(config: Config) -> dict[str, Any]:
    """Describe how an image becomes the input of a detector.

    Args:
        config (Config): A complete config.

    Returns:
        dict[str, Any]: ``color`` and ``range`` of the pixels; ``scale``,
        (long side, short side) or, without ``keep_ratio``, (width, height);
        ``rounding`` of the sides: ``down`` as in DETR's code, or ``nearest``.
        ``scale`` is None if images keep their size.

    Raises:
        UserError: If the test pipeline has other transforms than loading,
            resizing and packing.
    """
    described: dict[str, Any] = dict(
        color='RGB', range=[0, 255], scale=None, keep_ratio=True
    )
    _, _, transforms = next(leaf_pipelines(config, 'test'), ('', {}, []))
    for transform in transforms:
        kind = registered(str(transform['type']), TRANSFORMS)
        if is_a(kind, _LEFT_OUT) or transform['type'] in _PACKS:
            continue
        if not is_a(kind, Resize) or 'scale' not in transform:
            raise UserError(
                f'The test pipeline has {transform["type"]!r}, which a file '
                'cannot describe; only images that are loaded and resized '
                'to a scale can be exported.'
            )
        scale = transform['scale']
        scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        keeps = bool(transform.get('keep_ratio', is_a(kind, DETRResize)))
        described.update(
            scale=sorted(scale, reverse=True) if keeps else list(scale),
            keep_ratio=keeps,
            rounding='down' if is_a(kind, DETRResize) else 'nearest',
        )
    return described


def input_shape(described: dict[str, Any]) -> tuple[int, int]:
    """Size (h, w) of a landscape image after preprocessing.

    Args:
        described (dict[str, Any]): As :func:`preprocessing` returns it.
    """
    width, height = described['scale'] or (1333, 800)
    return height, width
