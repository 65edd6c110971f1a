# Copyright (c) mmdetr authors. All rights reserved.
"""Models that refuse weights of other shapes."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from project.checkpoints.comparison import Difference, shapes
from project.utils.errors import UserError, some_of

# Some backbones resize weights when loading.
_BACKBONE = 'backbone.'


class OwnWeightsMixin(BaseModule):
    """Module that raises if a checkpoint has weights of other shapes.

    mmengine's ``load_checkpoint``, and so mmdet's ``DetInferencer`` and
    ``init_detector``, only prints mismatched shapes, and a detector for other
    classes keeps a random classifier. This raises instead, wherever the
    module is nested. Missing weights are accepted, so that parts of a model
    can be loaded.
    """

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        _check_shapes(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_shapes(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str
) -> None:
    """Raise if the shapes below a prefix are not those of the module."""
    given = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    found = {
        name: tuple(value.shape)
        for name, value in given.items()
        if isinstance(value, Tensor)
    }
    expected = shapes(module.state_dict())
    kind = type(module).__name__
    if not found and isinstance(given.get('model'), Mapping):
        raise UserError(
            f'This {kind} would stay as it is: the checkpoint has its weights '
            'under model, as the official code writes them; convert it first '
            'with python -m project convert.'
        )
    if found and not found.keys() & expected:
        raise UserError(
            f'This {kind} would stay as it is: the checkpoint has '
            f'{some_of(found, 1)}, none of which is one of its names, '
            f'{some_of(expected, 1)}.'
        )
    difference = Difference.between(
        {k: v for k, v in found.items() if not k.startswith(_BACKBONE)},
        expected,
    )
    if not difference.reshaped:
        return
    head = getattr(module, 'bbox_head', module)
    num_classes = getattr(head, 'num_classes', None)
    other_num_classes = difference.other_num_classes(num_classes)
    if other_num_classes is not None:
        raise UserError(
            f'The checkpoint has {other_num_classes} classes and this {kind} '
            f'{num_classes}: set classes=(...) in the config to those of the '
            'checkpoint, or make a start for other classes from it with '
            'python -m project convert CHECKPOINT START.pth --num-classes '
            f'{num_classes}.'
        )
    only_reshaped = Difference([], [], difference.reshaped)
    raise UserError(
        f'The checkpoint is of another {kind}: {only_reshaped}; take a config '
        'with the settings of the checkpoint.'
    )
