# Copyright (c) mmdetr authors. All rights reserved.
"""Trained detectors for the analysis tools."""

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from project.checkpoints.start_checks import check_checkpoint
from project.preflight import check_data, check_model
from project.preflight.config_files import read_config_file
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from project.utils.finite import check_finite


def read_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config and apply the options of a command line.

    Args:
        path: The file, or one of an installed package (``mmdet::...``).
        options: What ``--cfg-options`` says.

    Raises:
        UserError: If there is no such file, or it cannot be read.
    """
    if '::' not in path and not Path(path).is_file():
        raise UserError(f'The config {path} does not exist.')
    return read_config_file(path, options)


def default_device() -> str:
    """Name the device that models run on unless told otherwise."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def load_detector(
    config: Config, checkpoint: str, device: str | None = None
) -> tuple[nn.Module, BaseDataset]:
    """Build model and test dataset of a config.

    Args:
        config: A complete config.
        checkpoint: File with the weights.
        device: Such as ``'cpu'`` or ``'cuda'``. By default a GPU where there
            is one.

    Returns:
        The model in evaluation mode, and the dataset.

    Raises:
        UserError: If config, checkpoint and data do not go together.
    """
    config = resolve_config(config)
    check_model(config)
    check_data(config, ['test'])
    init_default_scope(config.get('default_scope', 'mmdet'))
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model)
    weights = check_checkpoint(checkpoint, model)
    check_finite(weights, checkpoint, 'there is nothing to look at')
    load_checkpoint(model, checkpoint, map_location='cpu')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    return model.to(device or default_device()).eval(), dataset
