# Copyright (c) mmdetr authors. All rights reserved.
"""Checkpoints to hand on: weights, and what is needed to use them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from project.apis.detectors import class_names
from project.checkpoints.model_layout import build_on_meta
from project.checkpoints.start_checks import check_checkpoint
from project.checkpoints.writing import write_checkpoint
from project.preflight.config_files import read_config_file
from project.preflight.trained_config import read_meta, trained_config
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from project.utils.finite import check_finite
from project.version import __version__

_KEPT = ('epoch', 'iter', 'converted_from')
# Of the machine and the training, not of the detector.
_LEFT_OUT = (
    'work_dir',
    'load_from',
    'start_from',
    'resume',
    'overwrite',
    'launcher',
)


def publish(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    config: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Write the weights of a detector, with what is needed to use them.

    The file holds tensors and plain values only: ``torch.load(out,
    weights_only=True)`` reads it with every torch, without this package.
    Where ``EMAHook`` has averaged the weights, it holds the averages.

    Args:
        checkpoint: Path or URL of a checkpoint.
        out: File to write, which must not exist.
        config: The config it was trained with; see
            :func:`~project.apis.load_detector` for the default.

    Returns:
        dict[str, Any]: The metadata, under ``meta`` in the file:
        ``dataset_meta`` with ``classes``, ``preprocessing``, ``cfg`` (text of
        the config).

    Raises:
        UserError: If ``out`` exists, or the checkpoint cannot be read, does
            not fit the config or holds weights that are not finite.
    """
    checkpoint, out = os.fspath(checkpoint), Path(out)
    if out.exists():
        raise UserError(f'{out} exists already; name another file.')
    if config is None:
        content = trained_config(checkpoint)
    else:
        content = read_config_file(os.fspath(config))
    content = resolve_config(content)
    if 'backbone' in content.model:
        content.model.backbone.init_cfg = None
    weights = check_checkpoint(checkpoint, build_on_meta(content.model))
    check_finite(weights, checkpoint, 'there is nothing to publish')
    meta = _meta(checkpoint, content)
    tensors = {name: tensor.detach() for name, tensor in weights.items()}
    write_checkpoint(dict(state_dict=tensors, meta=meta), out)
    return meta


def _meta(checkpoint: str, config: Config) -> dict[str, Any]:
    """Describe a detector in plain values."""
    found = read_meta(checkpoint)
    content = {
        key: value
        for key, value in config.to_dict().items()
        if key not in _LEFT_OUT
    }
    return dict(
        dataset_meta=dict(classes=list(class_names(checkpoint, config))),
        preprocessing=preprocessing(config),
        cfg=Config(content).pretty_text,
        mmdetr_version=__version__,
        **{key: found[key] for key in _KEPT if key in found},
    )


def preprocessing(config: Config) -> dict[str, Any]:
    """Describe what happens to an image before the model sees it.

    Args:
        config: A complete config.

    Returns:
        dict[str, Any]: ``pipeline``, the transforms of the test pipeline;
        ``scale`` (long and short side in pixels, as in mmdet) and
        ``keep_ratio`` of the transform that resizes; ``channel_order`` of
        what ``mean`` and ``std`` apply to; ``pad_size_divisor``.
    """
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    pipeline = [dict(step) for step in Config(dict(x=dataset.pipeline)).x]
    model = config.model.get('data_preprocessor') or {}
    model = model.get('data_preprocessor', model)
    resize: Mapping = next((s for s in pipeline if 'scale' in s), {})
    is_rgb = model.get('bgr_to_rgb', False)
    plain = Config(
        dict(
            pipeline=pipeline,
            scale=resize.get('scale'),
            keep_ratio=resize.get('keep_ratio', False),
            channel_order='rgb' if is_rgb else 'bgr',
            mean=model.get('mean'),
            std=model.get('std'),
            pad_size_divisor=model.get('pad_size_divisor', 1),
        )
    )
    return plain.to_dict()
