# Copyright (c) mmdetr authors. All rights reserved.
"""Summaries of environment, data, model and schedule before a training."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import mmcv
import mmdet
import mmengine
import torch
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from project.ops import describe
from project.utils.accelerators import accelerators
from project.utils.words import counted
from project.version import __version__

_MAX_COUNTED = 20_000  # images whose objects are counted
_NUM_CLASSES_SHOWN = 6


def environment(runner: Runner) -> list[str]:
    """Describe versions, devices, processes and ops in four lines."""
    packages = dict(
        mmdetr=__version__,
        mmdet=mmdet.__version__,
        mmcv=mmcv.__version__,
        mmengine=mmengine.__version__,
    )
    versions = ', '.join(f'{name} {v}' for name, v in packages.items())
    python = f'Python {platform.python_version()}'
    numpy = f'numpy {metadata.version("numpy")}'
    driver, names = accelerators()
    if names:
        device = f'{names[0]}, {driver}'
    else:
        device = f'CPU, {counted(torch.get_num_threads(), "thread")}'
    attention = describe(get_device())
    processes = counted(runner.world_size, 'process', 'processes')
    return [
        f'Environment  {versions}',
        f'             {python}, torch {torch.__version__}, {numpy}',
        f'             {processes} on {device}; seed {runner.seed}',
        f'             deformable attention: {attention}',
    ]


def data(runner: Runner) -> list[str]:
    """Describe the datasets of a training in a table."""
    rows = [('Data', 'images', 'objects', 'batch', 'classes')]
    loaders = [('training', runner.train_dataloader)]
    if runner.val_loop is not None:
        loaders.append(('validation', runner.val_dataloader))
    rows += [(name, *_counts(loader)) for name, loader in loaders]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f'{row[0]:{widths[0]}}  '
        + '  '.join(
            f'{cell:>{width}}'
            for cell, width in zip(row[1:-1], widths[1:-1], strict=True)
        )
        + f'  {row[-1]}'
        for row in rows
    ]


def _counts(loader: DataLoader) -> tuple[str, str, str, str]:
    """Number of images and objects, batch size and class names."""
    dataset: Any = loader.dataset
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    shown = ', '.join(classes[:_NUM_CLASSES_SHOWN])
    if len(classes) > _NUM_CLASSES_SHOWN:
        shown += ', ...'
    return (
        f'{len(dataset):,}',
        _num_objects(dataset),
        str(getattr(loader.batch_sampler, 'batch_size', '-')),
        f'{len(classes)}: {shown}' if classes else '',
    )


def _num_objects(dataset: Any) -> str:
    """Count the objects, unless the dataset is too large for it."""
    if len(dataset) > _MAX_COUNTED or not hasattr(dataset, 'get_data_info'):
        return '-'
    infos = map(dataset.get_data_info, range(len(dataset)))
    objects = (item for info in infos for item in info.get('instances') or ())
    return f'{sum(not item.get("ignore_flag") for item in objects):,}'


def model(runner: Runner) -> list[str]:
    """Describe a detector in three lines."""
    detector = runner.model
    while is_model_wrapper(detector):
        detector = detector.module
    backbone = getattr(detector, 'backbone', None)
    name = type(detector).__name__.removeprefix('FSDP')  # of fully_shard
    on = f' on {type(backbone).__name__}' if backbone is not None else ''
    return [
        f'Model        {name}{on}',
        f'             {_sizes(detector)}',
        f'             {_start(runner)}',
    ]


def _sizes(detector: nn.Module) -> str:
    """Parameters, queries, layers and classes."""
    parameters = list(detector.parameters())
    total = sum(p.numel() for p in parameters) / 1e6
    trained = sum(p.numel() for p in parameters if p.requires_grad) / 1e6
    parts = [f'{total:.1f} M parameters, {trained:.1f} M of them trained']
    num_queries = getattr(detector, 'num_queries', None)
    if isinstance(num_queries, int):
        parts.append(counted(num_queries, 'query', 'queries'))
    for name in ('encoder', 'decoder'):
        layers = getattr(getattr(detector, name, None), 'layers', None)
        if layers is not None:
            parts.append(counted(len(layers), f'{name} layer'))
    head = getattr(detector, 'bbox_head', None)
    num_classes = getattr(head, 'num_classes', None)
    if isinstance(num_classes, int):
        parts.append(counted(num_classes, 'class', 'classes'))
    return '; '.join(parts)


def _start(runner: Runner) -> str:
    """Where the initial weights come from."""
    if runner._resume and runner._load_from:
        is_over = runner.iter >= runner.max_iters
        left = '; nothing is left to train' if is_over else ''
        return (
            f'resumed at iteration {runner.iter}, epoch {runner.epoch}{left}'
        )
    if runner._load_from:
        return f'starts from {runner._load_from}'
    backbone = (runner.cfg.get('model') or {}).get('backbone') or {}
    pretrained = (backbone.get('init_cfg') or {}).get('checkpoint')
    if pretrained:
        return f'starts from random weights, the backbone from {pretrained}'
    return 'starts from random weights'


def plan(runner: Runner) -> list[str]:
    """Describe the schedule and where results are written."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        unit = 'iteration'
        length = counted(loop.max_iters, unit)
    else:
        steps = counted(len(loop.dataloader), 'iteration')
        length, unit = (
            f'{counted(loop.max_epochs, "epoch")} of {steps}',
            'epoch',
        )
    batch = loop.dataloader.batch_sampler.batch_size * runner.world_size
    length += f' of {counted(batch, "image")}'
    drops = _drops(runner.cfg.get('param_scheduler'))
    learning = f'{_optimizer(runner)}{drops}'
    evaluation = ''
    if runner.val_loop is not None:
        evaluation = f'; evaluated every {counted(loop.val_interval, unit)}'
    return [
        f'Training     {length}, {learning}{evaluation}',
        f'             into {runner.work_dir}; all details in '
        f'{runner.logger.log_file}',
    ]


def _optimizer(runner: Runner) -> str:
    """Name of the optimizer, its learning rate and mixed precision."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:
        return type(runner.optim_wrapper).__name__
    # After scaling to the batch size, before warm-up and decay.
    rate = max(g.get('initial_lr', g['lr']) for g in optimizer.param_groups)
    text = f'{type(optimizer).__name__}, lr {rate:g}'
    precision = getattr(runner.optim_wrapper, 'precision', 'fp32')
    return text if precision == 'fp32' else f'{text}, in {precision}'


def _drops(schedulers: Any) -> str:
    """At which milestones the learning rate drops."""
    if not isinstance(schedulers, Sequence):
        schedulers = [schedulers]
    found = [
        ', '.join(map(str, scheduler['milestones']))
        for scheduler in schedulers
        if isinstance(scheduler, Mapping) and scheduler.get('milestones')
    ]
    return f', dropped after {"; ".join(found)}' if found else ''
