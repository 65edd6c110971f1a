# Copyright (c) mmdetr authors. All rights reserved.
"""Checks of a checkpoint against the model that will load it."""

import shlex
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from project.checkpoints.comparison import (
    OPTIONAL_SUFFIX,
    Difference,
    Shape,
    shapes,
)
from project.checkpoints.reading import (
    CONVERTER,
    loaded_weights,
    read_checkpoint,
)
from project.utils.errors import UserError, some_of

_RESUME_PARTS = ('meta', 'message_hub', 'optimizer')


def check_checkpoint(
    path: str,
    model: nn.Module,
    *,
    fine_tuning: bool = False,
    config: str | None = None,
) -> dict[str, Tensor]:
    """Raise unless a checkpoint holds exactly the weights of a model.

    Copies of a tensor under names that the model does not have are ignored.

    Args:
        path (str): A file or an address that mmengine can load from.
        model (nn.Module): The model, without wrappers.
        fine_tuning (bool): Whether the message explains how to start from a
            part of the weights. Defaults to False.
        config (str, optional): The config of the model, for the message.

    Raises:
        UserError: If it cannot be read, or names or shapes differ.
    """
    weights = loaded_weights(path)
    expected = shapes(model.state_dict())
    found = shapes(_without_second_names(weights, expected))
    difference = Difference.between(found, expected)
    if not difference:
        return weights
    head = getattr(model, 'bbox_head', None)
    num_classes = getattr(head, 'num_classes', None)
    other_num_classes = None
    if not (difference.unexpected or difference.missing):
        other_num_classes = difference.other_num_classes(num_classes)
    if other_num_classes is not None:
        options = f'--num-classes {num_classes}'
        if config:
            options = f'--config {shlex.quote(config)} {options}'
        remedy = (
            '; keep what does not depend on the classes with '
            f'{CONVERTER} {shlex.quote(path)} START.pth {options}, and set '
            'load_from to START.pth'
        )
        raise UserError(
            f'{path} was trained for {other_num_classes} classes and the '
            f'model has {num_classes}{remedy if fine_tuning else ""}.'
        )
    remedy = '; load_partially=True in the config takes what matches'
    num_matching = len(expected.keys() & found) - len(difference.reshaped)
    raise UserError(
        f'{path} is no checkpoint of this {type(model).__name__}: '
        f'{num_matching} of {len(expected)} tensors match, but {difference}'
        f'{remedy if fine_tuning else ""}.'
    )


def check_start_in_part(path: str, model: nn.Module) -> tuple[dict, str]:
    """Raise if no tensor of a checkpoint fits, for a partial start.

    Args:
        path (str): A file or an address that mmengine can load from.
        model (nn.Module): The model, without wrappers.

    Returns:
        tuple[dict[str, Tensor], str]: The weights that will be loaded, and a
        sentence with their number.

    Raises:
        UserError: If it cannot be read or has no weight of the model.
    """
    weights = loaded_weights(path)
    expected = shapes(model.state_dict())
    difference = Difference.between(shapes(weights), expected)
    taken = {
        name: value
        for name, value in weights.items()
        if name in expected and name not in difference.reshaped
    }
    if all(name.endswith(OPTIONAL_SUFFIX) for name in taken):
        raise UserError(
            f'{path} has none of the weights of this {type(model).__name__}, '
            f'so load_partially=True would start from random ones: '
            f'{difference}.'
        )
    told = f'{len(taken)} of {len(expected)} tensors are taken from {path}'
    parts = {
        'new': [*difference.missing, *difference.reshaped],
        'left out': difference.unexpected,
    }
    for kind, names in parts.items():
        if names:
            told += f'; {kind}: {some_of(names, 5)}'
    return taken, f'{told}.'


def check_resumable(path: str) -> None:
    """Raise unless a checkpoint holds the state of a training.

    Args:
        path (str): A file or an address that mmengine can load from.

    Raises:
        UserError: If it cannot be read or holds weights alone.
    """
    checkpoint = read_checkpoint(path)
    missing = [part for part in _RESUME_PARTS if part not in checkpoint]
    if missing:
        raise UserError(
            f'{path} has no {", ".join(missing)}, so no training can be '
            'resumed from it; start from its weights with load_from instead.'
        )
    for part in _RESUME_PARTS:
        if not isinstance(checkpoint[part], Mapping):
            raise UserError(
                f'{path} has a {type(checkpoint[part]).__name__} as {part}; '
                'expected the dict that a training saves.'
            )
    for count in ('epoch', 'iter'):
        if not isinstance(checkpoint['meta'].get(count), int):
            raise UserError(
                f'{path} has no number as {count} in meta, so where the '
                'training had come to is unknown; start from its weights '
                'with load_from instead.'
            )


def _without_second_names(
    weights: dict[str, Tensor], expected: dict[str, Shape]
) -> dict[str, Tensor]:
    """Drop second copies of tensors, in other parts of the model.

    A module that is registered twice is saved twice: in training, mmdet's DDQ
    also registers ``bbox_head.aux_reg_branches`` in the decoder.
    """
    by_end: dict[str, list[str]] = {}
    for name in expected.keys() & weights.keys():
        by_end.setdefault(name.partition('.')[2], []).append(name)
    return {
        name: value
        for name, value in weights.items()
        if name in expected
        or not any(
            torch.equal(value, weights[first])
            for first in by_end.get(name.partition('.')[2], ())
        )
    }
