# Copyright (c) mmdetr authors. All rights reserved.
"""Compares a checkpoint with the model that is to take its weights."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.mmengine_loaders import read_from_anywhere

_CONVERTER = 'tools/model_converters/official_to_mmdet.py'
# How the names begin in the repositories of the methods; mmdet has no
# module called transformer.
_OFFICIAL_NAMES = re.compile(r'(module\.)?(transformer\.|backbone\.0\.body\.)')
_RESUME_PARTS = ('meta', 'message_hub', 'optimizer')
OPTIONAL_SUFFIX = 'num_batches_tracked'
"""Counted by batch norm layers; sources other than mmdet leave it out, and
mmengine does not miss it either."""
_NUM_NAMES_SHOWN = 3

Shape = tuple[int, ...]


def check_checkpoint(
    path: str,
    model: nn.Module,
    *,
    fine_tuning: bool = False,
    config: str | None = None,
) -> dict[str, Tensor]:
    """Raise unless a checkpoint holds just the weights of a model.

    A tensor that is saved once more, exactly, under a name that the model does
    not have is no difference.

    Args:
        path (str): A file or an address that mmengine can load from.
        model (nn.Module): The model, without wrappers.
        fine_tuning (bool): Whether a part of the weights would do for a
            start, which the message then tells how to ask for. Defaults to
            False.
        config (str, optional): The file that the model comes from, for the
            message.

    Returns:
        dict[str, Tensor]: The weights, see :func:`loaded_weights`.

    Raises:
        UserError: If it cannot be read, or names or shapes differ.
    """
    weights = loaded_weights(path)
    expected = shapes(model.state_dict())
    found = shapes(_without_second_names(weights, expected))
    difference = _Difference.between(found, expected)
    if difference.is_none:
        return weights
    head = getattr(model, 'bbox_head', None)
    num_classes = getattr(head, 'num_classes', None)
    other_num_classes = difference.other_num_classes(num_classes)
    if other_num_classes is not None:
        options = f'--num-classes {num_classes}'
        if config:
            options = f'--config {shlex.quote(config)} {options}'
        remedy = (
            '; keep what does not depend on the classes with python '
            f'{_CONVERTER} {shlex.quote(path)} START.pth {options}, and set '
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


def loaded_weights(path: str) -> dict[str, Tensor]:
    """Read the weights that mmengine will load from a checkpoint.

    Args:
        path (str): A file or an address that mmengine can load from.

    Returns:
        dict[str, Tensor]: By the names of the model.

    Raises:
        UserError: If it cannot be read or is in the layout of other code.
    """
    return named_tensors(_weights(path, read_checkpoint(path)))


def named_tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the tensors by the names under which mmengine will load them.

    Args:
        weights (Mapping[str, Any]): Tensors and perhaps other things.

    Returns:
        dict[str, Tensor]: Without the ``module.`` of a wrapped model.
    """
    return {
        re.sub(r'^module\.', '', name): value
        for name, value in weights.items()
        if isinstance(value, Tensor)
    }


def shapes(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Tell the shapes of weights.

    Args:
        weights (Mapping[str, Tensor]): By their names.

    Returns:
        dict[str, Shape]: By the same names.
    """
    return {name: tuple(value.shape) for name, value in weights.items()}


def _without_second_names(
    weights: dict[str, Tensor], expected: dict[str, Shape]
) -> dict[str, Tensor]:
    """Leave out what is there a second time, in another part of the model.

    A module that hangs in two places is saved twice: the training of mmdet's
    DDQ makes ``bbox_head.aux_reg_branches`` a part of the decoder as well.
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


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Load a checkpoint, from the disk without reading its weights.

    Args:
        path (str): A file or an address that mmengine can load from.

    Returns:
        Mapping[str, Any]: What it holds.

    Raises:
        UserError: If it does not exist, cannot be read or is none.
    """
    checkpoint = read_from_anywhere(path)
    if not isinstance(checkpoint, Mapping):
        raise UserError(
            f'{path} holds a {type(checkpoint).__name__}; expected a '
            'checkpoint, which is a dict with state_dict.'
        )
    return checkpoint


def state_dict(path: str, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find where mmengine takes the weights of a checkpoint from.

    Args:
        path (str): Where it was read from, for the message.
        checkpoint (Mapping[str, Any]): As :func:`read_checkpoint` returns it.

    Returns:
        Mapping[str, Any]: What stands under the names of weights.

    Raises:
        UserError: If there are no tensors under names.
    """
    place = 'state_dict' if 'state_dict' in checkpoint else ''
    weights = checkpoint[place] if place else checkpoint
    if not isinstance(weights, Mapping):
        raise UserError(
            f'{path} has a {type(weights).__name__} as state_dict; expected '
            'a dict of tensors.'
        )
    if not all(isinstance(name, str) for name in weights):
        raise UserError(
            f'{path} has weights under {next(iter(weights))!r}; expected '
            'names of parameters.'
        )
    return weights


def _weights(path: str, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of a checkpoint in mmdet's layout."""
    weights = state_dict(path, checkpoint)
    is_wrapped = isinstance(weights.get('model'), Mapping)
    if is_wrapped or any(map(_OFFICIAL_NAMES.match, weights)):
        raise UserError(
            f'{path} is in the layout of the official code, not of mmdet; '
            f'convert it first with {_CONVERTER}.'
        )
    return weights


@dataclass(frozen=True)
class _Difference:
    """What keeps the weights of a checkpoint from being those of a model.

    Attributes:
        unexpected (list[str]): Names that the model does not have.
        missing (list[str]): Names that the checkpoint does not have.
        reshaped (dict): Shapes in the checkpoint and in the model.
    """

    unexpected: list[str]
    missing: list[str]
    reshaped: dict[str, tuple[Shape, Shape]]

    @classmethod
    def between(
        cls, found: dict[str, Shape], expected: dict[str, Shape]
    ) -> '_Difference':
        """Compare the shapes of a checkpoint with those of a model."""
        return cls(
            unexpected=[name for name in found if name not in expected],
            missing=[
                name
                for name in expected
                if name not in found and not name.endswith(OPTIONAL_SUFFIX)
            ],
            reshaped={
                name: (found[name], shape)
                for name, shape in expected.items()
                if found.get(name, shape) != shape
            },
        )

    @property
    def is_none(self) -> bool:
        """Tell whether the weights fit."""
        return not (self.unexpected or self.missing or self.reshaped)

    def other_num_classes(self, num_classes: int | None) -> int | None:
        """Find the number of classes, if nothing else differs.

        Args:
            num_classes (int | None): Of the model; None if unknown.

        Returns:
            int | None: Of the checkpoint.
        """
        if not self.reshaped or self.unexpected or self.missing:
            return None
        steps = set()
        for theirs, ours in self.reshaped.values():
            differing = [
                (found, size)
                for found, size in zip(theirs, ours, strict=False)
                if found != size
            ]
            if len(theirs) != len(ours) or len(differing) != 1:
                return None
            found, size = differing[0]
            # An embedding of labels, or a softmax, has one more for "none".
            if num_classes not in (size, size - 1):
                return None
            steps.add(found - size)
        return num_classes + steps.pop() if len(steps) == 1 else None

    def __str__(self) -> str:
        """Name the first few tensors."""
        parts = [
            *(f'{name} is not in the model' for name in self.unexpected),
            *(f'{name} is missing' for name in self.missing),
            *(
                f'{name} has shape {theirs} instead of {ours}'
                for name, (theirs, ours) in self.reshaped.items()
            ),
        ]
        more = len(parts) - _NUM_NAMES_SHOWN
        shown = ', '.join(parts[:_NUM_NAMES_SHOWN])
        return f'{shown} and {more} more differ' if more > 0 else shown
