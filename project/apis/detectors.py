# Copyright (c) mmdetr authors. All rights reserved.
"""Trained detectors for the analysis tools."""

import argparse
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from project.engine.runner.checkpoints import check_checkpoint
from project.preflight import check_data, check_model
from project.preflight.variables import resolve_config
from project.utils.errors import UserError


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that runs a model.

    Args:
        parser: Gets ``--device`` and ``--cfg-options``.
    """
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where models run',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of each config',
    )


def read_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config and apply the options of a command line.

    Args:
        path: The file, or one of an installed package (``mmdet::...``).
        options: What ``--cfg-options`` says.

    Raises:
        UserError: If there is no such file.
    """
    if '::' not in path and not Path(path).is_file():
        raise UserError(f'The config {path} does not exist.')
    config = Config.fromfile(path)
    config.merge_from_dict(options or {})
    return config


def positive_int(text: str) -> int:
    """Read a number of a command line, for ``argparse``.

    Args:
        text: What was typed.

    Raises:
        ArgumentTypeError: If it is no whole number above 0.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
    return int(text)


def load_detector(
    config: Config, checkpoint: str, device: str
) -> tuple[nn.Module, BaseDataset]:
    """Build model and test dataset of a config.

    Args:
        config: A complete config.
        checkpoint: File with the weights.
        device: Such as ``'cpu'`` or ``'cuda'``.

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
    check_checkpoint(checkpoint, model)
    load_checkpoint(model, checkpoint, map_location='cpu')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    return model.to(device).eval(), dataset
