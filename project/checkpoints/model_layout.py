# Copyright (c) mmdetr authors. All rights reserved.
"""The names and shapes that a config's model expects."""

import contextlib
import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch.overrides import TorchFunctionMode

from project.checkpoints.comparison import Shape, shapes
from project.utils.errors import UserError


class _ScheduleOnCPU(TorchFunctionMode):
    """Give ``torch.linspace`` real numbers where all else is on ``meta``.

    mmdet's Swin reads its drop path schedule off such a tensor.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.linspace:
            kwargs = dict(kwargs, device='cpu')
        return func(*args, **kwargs)


@dataclass(frozen=True)
class ModelLayout:
    """What the weights of a model must be.

    Args:
        config (str): The config it was built from.
        shapes (dict[str, Shape]): Name to shape of each parameter and
            saved buffer.
        tied (frozenset[str]): The names of tensors that have several.
        num_classes (int, optional): Classes of the model.
    """

    config: str
    shapes: dict[str, Shape]
    tied: frozenset[str]
    num_classes: int | None


def build_on_meta(model: dict) -> BaseModel:
    """Build a model that has shapes but no memory.

    Returns:
        BaseModel: The model, all its parameters on the ``meta`` device.
    """
    init_default_scope('mmdet')
    with on_meta():
        # mmdet's transformers write into the settings that they are given.
        return MODELS.build(copy.deepcopy(model))


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Make tensors of shapes alone, which take no memory and no time."""
    with torch.device('meta'), _ScheduleOnCPU():
        yield


def model_layout(
    config: str | os.PathLike, num_classes: int | None = None
) -> ModelLayout:
    """Find out what the weights of a config's model must be.

    Args:
        config (str | PathLike): Path of the config.
        num_classes (int, optional): The number of classes to build it with.
            By default the config's own.

    Raises:
        UserError: If there is no such config, or it has no model.
    """
    if not Path(config).is_file():
        raise UserError(f'config {config} does not exist or is no file')
    cfg = Config.fromfile(config)
    if 'model' not in cfg:
        raise UserError(f'config {config} has no model, so no names to check')
    if num_classes is None and cfg.get('classes'):
        num_classes = len(cfg.classes)
    if num_classes is not None:
        _set_num_classes(cfg.model, num_classes)
    text = repr(cfg.model)
    if text not in _KNOWN:
        _KNOWN[text] = _layout_of(build_on_meta(cfg.model))
    return replace(_KNOWN[text], config=str(config))


# Many configs differ in other things than the model.
_KNOWN: dict[str, ModelLayout] = {}


def _layout_of(model: BaseModel) -> ModelLayout:
    """What the weights of a model must be."""
    tensors = model.state_dict(keep_vars=True)
    head = getattr(model, 'bbox_head', None)
    return ModelLayout(
        config='',
        shapes=shapes(tensors),
        tied=_tied(tensors),
        num_classes=getattr(head, 'num_classes', None),
    )


def _set_num_classes(node: Any, num_classes: int) -> None:
    """Set every ``num_classes`` below a node of a config."""
    if isinstance(node, dict):
        if 'num_classes' in node:
            node['num_classes'] = num_classes
        # A backbone counts the classes of its own pretraining.
        node = [child for key, child in node.items() if key != 'backbone']
    if isinstance(node, (list, tuple)):
        for child in node:
            _set_num_classes(child, num_classes)


def _tied(tensors: dict[str, torch.Tensor]) -> frozenset[str]:
    """The names of tensors that have more than one."""
    names = defaultdict(list)
    for name, tensor in tensors.items():
        names[id(tensor)].append(name)
    return frozenset(
        name for group in names.values() if len(group) > 1 for name in group
    )
