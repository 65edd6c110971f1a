# Copyright (c) mmdetr authors. All rights reserved.
"""Finds the shipped configs whose model fits the weights of a checkpoint.

That requires building the models. Metafiles and the backbone in the name of a
config reduce the number of candidates.
"""

import contextlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache

import mmengine
from mmengine.config import utils as mmengine_configs

from project.checkpoints.comparison import Difference, shapes
from project.checkpoints.conversion import ConvertedCheckpoint
from project.checkpoints.description import backbone_of
from project.checkpoints.model_layout import ModelLayout, model_layout
from project.utils.paths import config_path


def fitting_configs(converted: ConvertedCheckpoint) -> tuple[str, ...]:
    """Find the shipped configs whose model has these weights.

    Several configs may fit, since epochs, drop path and loss settings leave
    no trace in the weights.

    Returns:
        tuple[str]: Paths below ``configs/``, the main one first.
    """
    return tuple(
        name
        for name in _candidates(converted)
        if _distance(converted, name) == 0
    )


def nearest_config(converted: ConvertedCheckpoint) -> str:
    """Find the shipped config that is closest to the weights.

    Returns:
        str: Path below ``configs/``; the main one for unknown backbones.
    """
    names = _candidates(converted)
    if not names:
        return shipped_configs(converted.layout.configs)[0]
    return min(names, key=lambda name: _distance(converted, name))


def shipped_configs(
    patterns: tuple[str, ...], backbone: str | None = None
) -> list[str]:
    """List shipped configs.

    Args:
        patterns (tuple[str]): Such as ``h_detr/*_coco.py``.
        backbone (str, optional): Such as ``r50``, for configs with it in
            their name, alone or with a suffix (``r50-dc5``).

    Returns:
        list[str]: Paths below ``configs/``, in the order of the patterns,
        then of the metafile.
    """
    names = dict.fromkeys(
        name
        for pattern in patterns
        for name in _listed(pattern.partition('/')[0])
        if fnmatch(name, pattern)
    )
    return [
        name
        for name in names
        if backbone is None or re.search(f'_{re.escape(backbone)}[_-]', name)
    ]


@cache
def _listed(folder: str) -> list[str]:
    """Configs in a metafile."""
    metafile = mmengine.load(config_path(f'{folder}/metafile.yml'))
    return [
        model['Config'].removeprefix('configs/')
        for model in metafile['Models']
    ]


def _candidates(converted: ConvertedCheckpoint) -> list[str]:
    """Configs of the layout with the backbone."""
    backbone = backbone_of(converted.state_dict)
    return shipped_configs(converted.layout.configs, backbone)


def _distance(converted: ConvertedCheckpoint, name: str) -> int:
    """Number of names in which weights and model differ."""
    model = _shipped_layout(name, converted.num_classes)
    difference = Difference.between(shapes(converted.state_dict), model.shapes)
    return len(difference) or len(model.tied ^ converted.tied)


@cache
def _shipped_layout(name: str, num_classes: int | None) -> ModelLayout:
    """Names and shapes of the weights of a shipped config."""
    with _metafiles_read_once():
        return model_layout(config_path(name), num_classes)


_load_once = cache(mmengine.load)


@contextlib.contextmanager
def _metafiles_read_once() -> Iterator[None]:
    """Cache mmdet's metafiles, which mmengine reads for each mmdet base."""
    original = mmengine_configs.load
    mmengine_configs.load = _load_once
    try:
        yield
    finally:
        mmengine_configs.load = original
