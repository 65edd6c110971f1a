"""A checkpoint as a training leaves it, without the training."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from project.datasets.shapes_scene import SHAPE_CLASSES
from tests.helpers.toy import build_model
from tests.helpers.training import toy_config


def write_trained(
    path: Path, data_root: Path, with_config: bool = True, **meta: Any
) -> Config:
    """Write weights of the toy model, with scores from 0 to 1.

    Args:
        path: The checkpoint.
        data_root: Where the toy data lie.
        with_config: Whether it holds its config.
        **meta: What its ``meta`` holds besides.

    Returns:
        Config: Of the model.
    """
    config = toy_config(data_root, path.parent / 'work')
    meta.setdefault('dataset_meta', dict(classes=SHAPE_CLASSES))
    if with_config:
        meta['cfg'] = config.pretty_text
    model = build_model(config.model)
    for layer in model.bbox_head.cls_branches:
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.normal_(layer.bias, std=1)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return config
