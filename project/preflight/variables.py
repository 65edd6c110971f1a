# Copyright (c) mmdetr authors. All rights reserved.
"""Carries ``data_root`` and ``classes`` from one place to the whole config."""

import copy
import posixpath
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.utils import is_seq_of

from project.preflight.config_tree import (
    SPLITS,
    leaf_datasets,
    model_configs,
)
from project.utils.errors import UserError


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
