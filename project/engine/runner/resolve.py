# Copyright (c) mmdetr authors. All rights reserved.
"""Carries ``data_root`` and ``classes`` from one place to the whole config."""

import copy
import posixpath
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.utils import is_seq_of

from project.utils.errors import UserError

SPLITS = ('train', 'val', 'test')


def resolve_config(cfg: Config | dict) -> Config:
    """Apply the variables ``data_root`` and ``classes`` everywhere.

    A variable of a config reaches the places that were written with it when
    its own file is read; a child config or ``--cfg-options`` that sets it
    later changes the variable alone. This brings the rest in line:

    - ``data_root``: if the datasets lie under another root, that root is
      exchanged at the start of every path of the dataloaders and evaluators.
    - ``classes``: becomes the ``metainfo`` of every dataset, and its length
      every ``num_classes`` of the model outside of the backbone.

    Args:
        cfg (Config | dict): A complete config; it is left as it is.

    Returns:
        Config: A copy in which both variables hold everywhere.

    Raises:
        UserError: If ``classes`` is not a list of different names, or the
            datasets lie under several roots other than ``data_root``.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(cfg)
    if cfg.get('data_root') is not None:
        _move_data(cfg, cfg.data_root)
    if cfg.get('classes') is not None:
        cfg.classes = _class_names(cfg.classes)
        _set_classes(cfg, cfg.classes)
    return cfg


def leaf_datasets(cfg: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """Walk through wrappers to the datasets that read from the disk.

    Args:
        cfg (Config): A complete config.
        split (str): ``train``, ``val`` or ``test``.

    Yields:
        tuple[str, ConfigDict]: Where the dataset stands in the config, such
        as ``train_dataloader.dataset.datasets[0]``, and its own config.
    """
    for name, dataset, _ in leaf_pipelines(cfg, split):
        yield name, dataset


def leaf_pipelines(
    cfg: Config, split: str
) -> Iterator[tuple[str, ConfigDict, list]]:
    """Tell what becomes of the images of these datasets.

    Args:
        cfg (Config): A complete config.
        split (str): ``train``, ``val`` or ``test``.

    Yields:
        tuple[str, ConfigDict, list]: As :func:`leaf_datasets`, and all
        transforms in their order, those of the wrappers last.
    """
    dataloader = cfg.get(f'{split}_dataloader') or {}
    if dataloader.get('dataset'):
        yield from _leaves(f'{split}_dataloader.dataset', dataloader.dataset)


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
        tuple[str, ConfigDict]: Where the metric stands in the config and its
        own config.
    """
    evaluator = cfg.get(f'{split}_evaluator') or []
    if isinstance(evaluator, dict):
        yield f'{split}_evaluator', evaluator
        return
    for index, metric in enumerate(evaluator):
        yield f'{split}_evaluator[{index}]', metric


def model_configs(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the parts of the model that may hold a ``num_classes``.

    The backbone is left out: what it counts are the classes of its own
    pretraining.

    Args:
        cfg (Config): A complete config.

    Yields:
        ConfigDict: Each dict inside of ``cfg.model`` and the model itself.
    """
    yield from nested_dicts(cfg.get('model'))


def nested_dicts(node: Any) -> Iterator[ConfigDict]:
    """Walk through dicts and lists, but not through backbones.

    Args:
        node (Any): A part of a config.

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


def drop_missing_backends(cfg: Config) -> list[str]:
    """Take TensorBoard out of the config where it is not installed.

    It only writes what the logs have as well, and would stop the run.

    Args:
        cfg (Config): A config; is changed.

    Returns:
        list[str]: A sentence for each change.
    """
    visualizer = cfg.get('visualizer') or {}
    backends = visualizer.get('vis_backends') or []
    left = [
        backend
        for backend in backends
        if backend.get('type') != 'TensorboardVisBackend'
    ]
    if len(left) == len(backends) or find_spec('tensorboard'):
        return []
    visualizer.vis_backends = left
    return [
        'TensorBoard, which the config asks for, is not installed, and '
        'nothing is written for it; pip install tensorboard changes that.'
    ]


def _move_data(cfg: Config, new_root: str) -> None:
    """Exchange the root under which the datasets lie for ``new_root``."""
    roots = {
        _normal(dataset.data_root)
        for split in SPLITS
        for _, dataset in leaf_datasets(cfg, split)
        if dataset.get('data_root')
    }
    if not roots or _normal(new_root) in roots:
        return
    if len(roots) > 1:
        raise UserError(
            f'data_root is {new_root!r}, but the datasets lie under '
            f'{", ".join(map(repr, sorted(roots)))}, so it is not clear which '
            'of these it replaces: set data_root of each dataset instead.'
        )
    old_root = roots.pop()
    for split in SPLITS:
        for key in (f'{split}_dataloader', f'{split}_evaluator'):
            if cfg.get(key) is not None:
                cfg[key] = _moved(cfg[key], old_root, new_root)


def _normal(path: str) -> str:
    """Spell a folder in one way; remote addresses keep their slashes."""
    return path.rstrip('/') if '://' in path else posixpath.normpath(path)


def _moved(node: Any, old_root: str, new_root: str) -> Any:
    """Copy ``node`` with each path under ``old_root`` moved."""
    if isinstance(node, dict):
        return type(node)(
            {k: _moved(v, old_root, new_root) for k, v in node.items()}
        )
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(v, old_root, new_root) for v in node)
    if not isinstance(node, str) or not node:
        return node
    path = _normal(node)
    if path == old_root:
        return new_root
    if path.startswith(old_root + '/'):
        return posixpath.join(new_root, path[len(old_root) + 1 :])
    return node


def _class_names(classes: Any) -> tuple[str, ...]:
    """Return ``classes`` as a tuple of names, a lone name as one class."""
    # --cfg-options makes a string of one name and numbers of digits.
    names = [classes] if isinstance(classes, (str, int)) else list(classes)
    if not names or not is_seq_of(names, (str, int)):
        raise UserError(
            f'classes is {classes!r}; expected the names of the classes, such '
            "as classes = ('cat', 'dog')."
        )
    names = [str(name) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f'classes names {", ".join(map(repr, twice))} more than once; '
            'expected different names.'
        )
    return tuple(names)


def _set_classes(cfg: Config, classes: tuple[str, ...]) -> None:
    """Tell every dataset the names and the model their number."""
    for split in SPLITS:
        for _, dataset in leaf_datasets(cfg, split):
            metainfo = dict(dataset.get('metainfo') or {}, classes=classes)
            # Without this the 80 colours of COCO stay, and drawing a class
            # beyond them fails.
            metainfo.setdefault('palette', None)
            dataset.metainfo = ConfigDict(metainfo)
    for part in model_configs(cfg):
        if 'num_classes' in part:
            part.num_classes = len(classes)
