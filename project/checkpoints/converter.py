# Copyright (c) mmdetr authors. All rights reserved.
"""Converts one checkpoint file into another."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS
from torch import Tensor

from project.checkpoints.class_tensors import NUM_COCO_CLASSES
from project.checkpoints.conversion import (
    ConvertedCheckpoint,
    convert_state_dict,
    for_finetuning,
    with_our_names,
)
from project.checkpoints.layouts.own_names import has_our_names
from project.checkpoints.model_layout import (
    model_layout,
    read_model_config,
)
from project.checkpoints.query_ranks import with_first_queries
from project.checkpoints.reading import read_weights
from project.checkpoints.shipped_configs import (
    fitting_configs,
    nearest_config,
)
from project.checkpoints.verification import check_model
from project.checkpoints.writing import write_checkpoint
from project.utils.errors import UserError
from project.utils.paths import config_path

PathLike = str | os.PathLike


def convert_file(
    source: PathLike,
    target: PathLike,
    *,
    config: PathLike | None = None,
    num_classes: int | None = None,
    num_queries: int | None = None,
    overwrite: bool = False,
) -> tuple[ConvertedCheckpoint, tuple[str, ...]]:
    """Convert a checkpoint of another repository.

    Checkpoints with this project's names are only converted for fine-tuning.

    Args:
        source (PathLike): The checkpoint.
        target (PathLike): Output file, in mmdet's format.
        config (PathLike, optional): Config whose model the weights must fit.
            By default a shipped one is found.
        num_classes (int, optional): Number of classes to fine-tune for. By
            default the classes are kept, and COCO's category ids are reduced
            to its 80 classes.
        num_queries (int, optional): How many queries to keep, where they are
            ranks: the first ones. By default all are kept.
        overwrite (bool): Whether ``target`` may exist, unless it is
            ``source``. Defaults to False.

    Returns:
        tuple[ConvertedCheckpoint, tuple[str]]: The converted weights, and the
        configs that they fit.

    Raises:
        UserError: If ``target`` exists, ``source`` cannot be read safely, is
            of no known layout or needs no conversion, or names and shapes
            differ from the model. Nothing is written then.
    """
    target = Path(target)
    if target.is_dir() or (target.exists() and not overwrite):
        way_out = 'name a file' if target.is_dir() else 'give --overwrite'
        raise UserError(f'{target} exists already; {way_out}')
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise UserError(
            f'{target} is the checkpoint itself; name another file'
        )
    weights = read_weights(source)
    try:
        converted = _converted(weights, num_classes, num_queries)
        if config is None:
            configs = _check_shipped(converted)
            config = config_path(configs[0].removeprefix('configs/'))
            num_classes = converted.num_classes
        else:
            configs = (str(config),)
        if num_queries is not None:
            converted = _with_first_queries(converted, config, num_queries)
        layout = model_layout(config, num_classes, num_queries)
        check_model(converted, layout)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    meta = _meta(converted, Path(source).name, configs)
    if num_queries is not None:
        cfg = read_model_config(config)
        cfg.model.num_queries = num_queries
        meta['cfg'] = cfg.pretty_text
    write_checkpoint(dict(state_dict=converted.state_dict, meta=meta), target)
    return converted, configs


def _converted(
    weights: Mapping[str, Tensor],
    num_classes: int | None,
    num_queries: int | None,
) -> ConvertedCheckpoint:
    """Convert weights, for fine-tuning if ``num_classes`` is given."""
    if num_classes is None and num_queries is None:
        return convert_state_dict(weights)
    is_ours = has_our_names(weights)
    converted = (with_our_names if is_ours else convert_state_dict)(weights)
    if num_classes is None:
        return converted
    if (
        is_ours
        and num_queries is None
        and num_classes == converted.num_classes
    ):
        raise UserError(
            f"the checkpoint has this project's names and {num_classes} "
            'classes already: load it as it is'
        )
    return for_finetuning(converted, num_classes)


def _with_first_queries(
    converted: ConvertedCheckpoint, config: PathLike, num_queries: int
) -> ConvertedCheckpoint:
    """Keep the queries of the first ranks."""
    one2many = read_model_config(config).model.get('one2many') or {}
    has_copies = one2many.get('num_copies', 0) > 0
    weights, before = with_first_queries(
        converted.state_dict,
        num_queries,
        one2many.get('num_queries', 0) if has_copies else 0,
    )
    return replace(
        converted, state_dict=weights, num_queries=(before, num_queries)
    )


def _check_shipped(converted: ConvertedCheckpoint) -> tuple[str, ...]:
    """Find the shipped configs that the weights fit, or raise."""
    configs = fitting_configs(converted)
    name = configs[0] if configs else nearest_config(converted)
    layout = model_layout(config_path(name), converted.num_classes)
    try:
        check_model(converted, replace(layout, config=f'configs/{name}'))
    except UserError as error:
        raise UserError(
            f'{error} (which comes closest of the shipped configs; name your '
            'own with --config)'
        ) from error
    return tuple(f'configs/{name}' for name in configs)


def _meta(
    converted: ConvertedCheckpoint, source: str, configs: tuple[str, ...]
) -> dict[str, Any]:
    """Describe the conversion, with class names for mmdet's inferencer."""
    meta: dict[str, Any] = dict(
        converted_from=source,
        layout=converted.layout.name,
        configs=list(configs),
        num_classes=converted.num_classes,
    )
    if converted.num_classes == NUM_COCO_CLASSES and not converted.renewed:
        meta['dataset_meta'] = dict(DATASETS.get('mmdet.CocoDataset').METAINFO)
    return meta
