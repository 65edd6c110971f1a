# Copyright (c) mmdetr authors. All rights reserved.
"""Names and shapes of the weights of a config's model."""

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
    """Keeps ``torch.linspace`` on the CPU when all else is on ``meta``.

    mmdet's Swin reads its drop path schedule from such a tensor.
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
    """Weights that a model expects.

    Args:
        config (str): Config of the model.
        shapes (dict[str, Shape]): Shape of each parameter and saved buffer.
        tied (frozenset[str]): Names of tensors that have several names.
        num_classes (int, optional): Number of classes of the model.
    """

    config: str
    shapes: dict[str, Shape]
    tied: frozenset[str]
    num_classes: int | None


def build_on_meta(model: dict) -> BaseModel:
    """Build a model on the ``meta`` device."""
    init_default_scope('mmdet')
    with on_meta():
        # mmdet's transformers modify their settings.
        return MODELS.build(copy.deepcopy(model))


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Create tensors on the ``meta`` device, without memory or values."""
    with torch.device('meta'), _ScheduleOnCPU():
        yield


def model_layout(
    config: str | os.PathLike,
    num_classes: int | None = None,
    num_queries: int | None = None,
) -> ModelLayout:
    """Names and shapes of the weights of a config's model.

    Args:
        config (str | PathLike): Path of the config.
        num_classes (int, optional): Number of classes of the model. Defaults
            to that of the config.
        num_queries (int, optional): Number of its queries. Defaults to that
            of the config.

    Raises:
        UserError: If there is no such config, or it has no model.
    """
    cfg = read_model_config(config)
    if num_queries is not None:
        cfg.model.num_queries = num_queries
    if num_classes is None and cfg.get('classes'):
        num_classes = len(cfg.classes)
    if num_classes is not None:
        _set_num_classes(cfg.model, num_classes)
    text = repr(cfg.model)
    if text not in _KNOWN:
        _KNOWN[text] = _layout_of(build_on_meta(cfg.model))
    return replace(_KNOWN[text], config=str(config))


def read_model_config(config: str | os.PathLike) -> Config:
    """Read a config with a model.

    Args:
        config (str | PathLike): Path of the config.

    Raises:
        UserError: If there is no such config, or it has no model.
    """
    if not Path(config).is_file():
        raise UserError(f'config {config} does not exist or is no file')
    cfg = Config.fromfile(config)
    if 'model' not in cfg:
        raise UserError(f'config {config} has no model, so no names to check')
    return cfg


# Layouts by the text of the model, which many configs share.
_KNOWN: dict[str, ModelLayout] = {}


def _layout_of(model: BaseModel) -> ModelLayout:
    """Names and shapes of the weights of a model."""
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
        # In a backbone it is the number of classes of the pretraining.
        node = [child for key, child in node.items() if key != 'backbone']
    if isinstance(node, (list, tuple)):
        for child in node:
            _set_num_classes(child, num_classes)


def _tied(tensors: dict[str, torch.Tensor]) -> frozenset[str]:
    """Names of tensors that have several names."""
    names = defaultdict(list)
    for name, tensor in tensors.items():
        names[id(tensor)].append(name)
    return frozenset(
        name for group in names.values() if len(group) > 1 for name in group
    )
