# Copyright (c) mmdetr authors. All rights reserved.
"""Walks through a config: datasets, metrics and parts of the model."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry

SPLITS = ('train', 'val', 'test')


def leaf_datasets(cfg: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """Walk through wrappers to the datasets that read from the disk.

    Args:
        cfg (Config): A complete config.
        split (str): ``train``, ``val`` or ``test``.

    Yields:
        tuple[str, ConfigDict]: Place of the dataset in the config, such as
        ``train_dataloader.dataset.datasets[0]``, and its own config.
    """
    for name, dataset, _ in leaf_pipelines(cfg, split):
        yield name, dataset


def leaf_pipelines(
    cfg: Config, split: str
) -> Iterator[tuple[str, ConfigDict, list]]:
    """Walk to the datasets like :func:`leaf_datasets`, with transforms.

    Yields:
        tuple[str, ConfigDict, list]: Place and config of a dataset, and all
        transforms of its images in order, those of the wrappers last.
    """
    loader = cfg.get(f'{split}_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    if dataset:
        yield from _leaves(f'{split}_dataloader.dataset', dataset)


def _leaves(
    name: str, dataset: ConfigDict, transforms: Sequence = ()
) -> Iterator[tuple[str, ConfigDict, list]]:
    """Yield ``dataset``, or what it wraps; ``transforms`` come after it."""
    transforms = [*(dataset.get('pipeline') or ()), *transforms]
    wrapped = dataset.get('dataset')
    if isinstance(wrapped, dict):
        yield from _leaves(f'{name}.dataset', wrapped, transforms)
    elif 'datasets' in dataset:
        for index, child in enumerate(dataset.datasets):
            yield from _leaves(f'{name}.datasets[{index}]', child, transforms)
    else:
        yield name, dataset, transforms


def evaluators(cfg: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the metrics of a split.

    Args:
        cfg (Config): A complete config.
        split (str): ``val`` or ``test``; ``train`` has none.

    Yields:
        tuple[str, ConfigDict]: Place of the metric in the config and its own
        config.
    """
    name = f'{split}_evaluator'
    evaluator: Any = cfg.get(name) or []
    if holds_metrics(evaluator):
        name, evaluator = f'{name}.metrics', evaluator['metrics']
    if isinstance(evaluator, dict):
        yield name, evaluator
        return
    is_list = isinstance(evaluator, (list, tuple))
    for index, metric in enumerate(evaluator if is_list else ()):
        yield f'{name}[{index}]', metric


def metric_kinds(metric: ConfigDict) -> Sequence:
    """Tell what a ``CocoMetric`` evaluates, such as ``['bbox']``."""
    kinds = metric.get('metric') or 'bbox'
    return kinds if isinstance(kinds, (list, tuple)) else [kinds]


def holds_metrics(evaluator: Any) -> bool:
    """Tell whether it is an evaluator of a class, and not a metric itself.

    Such as mmdet's for several datasets. A metric may have a misspelt
    ``metric``.
    """
    metrics = isinstance(evaluator, dict) and evaluator.get('metrics')
    if isinstance(metrics, (list, tuple)):
        return all(isinstance(metric, dict) for metric in metrics)
    return isinstance(metrics, dict)


def model_configs(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the parts of the model that may hold a ``num_classes``.

    The backbone is left out: it counts the classes of its pretraining.

    Yields:
        ConfigDict: Each dict inside of ``cfg.model`` and the model itself.
    """
    yield from nested_dicts(cfg.get('model'))


def nested_dicts(node: Any) -> Iterator[ConfigDict]:
    """Walk through dicts and lists, but not through backbones.

    Yields:
        ConfigDict: Each dict in it, and itself if it is one.
    """
    if isinstance(node, dict):
        yield node
        for key, child in node.items():
            if key != 'backbone':
                yield from nested_dicts(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from nested_dicts(child)


def nested_transforms(transforms: Sequence) -> Iterator[ConfigDict]:
    """Yield the transforms of a pipeline and those that they wrap."""
    for part in transforms:
        if isinstance(part, dict):
            yield part
            yield from nested_transforms(part.get('transforms') or ())
        elif isinstance(part, (list, tuple)):
            yield from nested_transforms(part)


def named_dicts(node: Any, name: str) -> Iterator[tuple[str, dict]]:
    """Walk through dicts and lists.

    Yields:
        tuple[str, dict]: Where each dict stands, and the dict; outer ones
        before inner ones.
    """
    if isinstance(node, dict):
        yield name, node
        for key, child in node.items():
            yield from named_dicts(child, f'{name}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from named_dicts(child, f'{name}[{index}]')


def all_dicts(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Walk through a whole config, as :func:`named_dicts`."""
    for key, value in cfg.items():
        yield from named_dicts(value, key)


def is_remote(part: ConfigDict) -> bool:
    """Tell whether a dataset or metric reads through a storage backend."""
    paths = (part.get('data_root'), part.get('ann_file'))
    return part.get('backend_args') is not None or any(
        '://' in str(path or '') for path in paths
    )


def registered_class(part: ConfigDict, registry: Registry) -> Any:
    """Look up the class of a part, None if it is not registered."""
    name = part.get('type')
    if inspect.isclass(name):
        return name
    return registered(name, registry) if isinstance(name, str) else None


def registered(name: str, registry: Registry) -> Any:
    """Look a name up in a registry, None if it is not registered."""
    try:
        return registry.get(name)
    except Exception:  # what some versions raise for a name with dots
        return None


def is_known(found: Any) -> bool:
    """Tell whether a class or function is mmcv's, mmdet's or of this package.

    What one of the user's own does, nobody here knows.
    """
    package = (getattr(found, '__module__', None) or '').partition('.')[0]
    return package in ('mmcv', 'mmdet', 'mmengine', 'project')


def is_a(found: Any, parent: type | tuple) -> bool:
    """Tell whether what was looked up is a class of this kind."""
    return inspect.isclass(found) and issubclass(found, parent)


def dataset_classes(dataset: ConfigDict) -> tuple[str, ...] | None:
    """Return the classes that a dataset will have, None if unknown."""
    metainfo = dataset.get('metainfo') or {}
    dataset_class = registered_class(dataset, DATASETS)
    default = getattr(dataset_class, 'METAINFO', {})
    classes = metainfo.get('classes', default.get('classes'))
    # A string would be a file of names, which the dataset itself reads.
    return tuple(classes) if isinstance(classes, (list, tuple)) else None
