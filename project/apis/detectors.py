# Copyright (c) mmdetr authors. All rights reserved.
"""Trained detectors for the analysis tools."""

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from project.checkpoints.start_checks import check_checkpoint
from project.preflight import check_data, check_model
from project.preflight.variables import resolve_config
from project.utils.finite import check_finite


def load_detector(
    config: Config, checkpoint: str, device: str | None = None
) -> tuple[nn.Module, BaseDataset]:
    """Build model and test dataset of a config.

    Args:
        config: A complete config.
        checkpoint: File with the weights.
        device: Such as ``'cpu'`` or ``'cuda'``. By default an accelerator
            if there is one.

    Returns:
        The model in evaluation mode, and the dataset.

    Raises:
        UserError: If config, checkpoint and data do not fit together.
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
    return model.to(device or get_device()).eval(), dataset
