# Copyright (c) mmdetr authors. All rights reserved.
"""Applies a config's variables to the whole config.

The places that use a variable of a config are evaluated when its own file is
read: a child config or ``--cfg-options`` that sets the variable later changes
nothing else. This module applies ``data_root``, ``classes``, ``max_epochs``
and ``image_size`` to the datasets, metrics, model and schedule;
``resolved_reading.py`` calls it wherever a config is read.
"""

import copy
import itertools
import logging
import os
import posixpath
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.utils import is_seq_of

from project.preflight.config_history import is_set_in, values_of_files
from project.preflight.config_tree import (
    SPLITS,
    leaf_datasets,
    model_configs,
)
from project.preflight.image_size import set_image_size
from project.utils.errors import UserError

_TRACKERS = {
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
}
"""Library of each of mmengine's backends that needs one."""


def resolve_config(cfg: Config | dict) -> Config:
    """Apply the variables of a config to the whole config.

    - ``data_root``: replaces the previous root in every path of the
      dataloaders and evaluators. A ``data_root`` set at a dataset itself
      stays.
    - ``classes``: set as the ``metainfo`` of every dataset, and its length as
      every ``num_classes`` of the model outside of the backbone.
    - ``max_epochs``: set as ``train_cfg.max_epochs``, and as the end of
      schedulers that ended with the training.
    - ``image_size``: the short side of images in testing; all sizes of the
      pipelines are scaled with it.

    Args:
        cfg (Config | dict): A complete config; not changed.

    Returns:
        Config: A copy to which the variables are applied.

    Raises:
        UserError: If ``classes`` is not a list of unique names, or it is
            ambiguous which of several roots ``data_root`` replaces.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(cfg)
    content = cfg._cfg_dict
    if content.get('data_root') is not None:
        _hold_data_root(content, cfg.filename)
    if content.get('classes') is not None:
        set_classes(content, content.classes)
    if content.get('max_epochs') is not None:
        _hold_max_epochs(content, cfg.filename)
    if content.get('image_size') is not None:
        set_image_size(content, content.image_size)
    return cfg


def drop_missing_backends(cfg: Config) -> list[str]:
    """Remove backends of the visualizer whose library is not installed.

    They would stop the run, and write only what the logs have as well.

    Args:
        cfg (Config): A config; changed in place.

    Returns:
        list[str]: A sentence for each change.
    """
    visualizer = cfg.get('visualizer') or {}
    backends = visualizer.get('vis_backends') or []
    missing = {
        kind: library
        for kind, library in _TRACKERS.items()
        if not find_spec(library)
        and any(backend.get('type') == kind for backend in backends)
    }
    if missing:
        visualizer['vis_backends'] = [
            backend for backend in backends if backend['type'] not in missing
        ]
    return [
        f'{kind.removesuffix("VisBackend")}, which the config asks for, is '
        f'not installed, and nothing is written for it; pip install {library} '
        'changes that.'
        for kind, library in missing.items()
    ]


def set_data_root(content: ConfigDict, new_root: Any) -> None:
    """Set ``data_root`` and move all paths below the previous one.

    Args:
        content (ConfigDict): A complete config; changed in place.
        new_root (str | PathLike): The new root.

    Raises:
        UserError: If it is no path, or it is ambiguous which root it
            replaces.
    """
    new_root = _as_path(new_root)
    old_root = content.get('data_root')
    content.data_root = new_root
    if old_root is not None and _normal(old_root) in _roots(content):
        _move_data(content, _normal(old_root), new_root)
    else:
        _move_only_root(content, new_root)


def set_classes(content: ConfigDict, classes: Any) -> None:
    """Set ``classes``, every dataset's ``metainfo`` and ``num_classes``.

    Args:
        content (ConfigDict): A complete config; changed in place.
        classes (Sequence[str] | None): The names; None changes nothing else.

    Raises:
        UserError: If they are not unique names.
    """
    content.classes = classes
    if classes is None:
        return
    content.classes = names = _class_names(classes)
    for split in SPLITS:
        for _, dataset in leaf_datasets(content, split):
            metainfo = dict(dataset.get('metainfo') or {}, classes=names)
            # Otherwise COCO's 80 colours stay, and drawing further classes
            # fails.
            metainfo.setdefault('palette', None)
            dataset.metainfo = ConfigDict(metainfo)
    for part in model_configs(content):
        if 'num_classes' in part:
            part.num_classes = len(names)


def set_max_epochs(content: ConfigDict, max_epochs: Any) -> None:
    """Set ``max_epochs``, that of ``train_cfg`` and the end of schedulers.

    Milestones of the learning rate stay, with a warning.

    Args:
        content (ConfigDict): A complete config; changed in place.
        max_epochs (int): The new number of epochs.

    Raises:
        UserError: If the training counts iterations.
    """
    content.max_epochs = max_epochs
    loop = content.get('train_cfg') or {}
    if loop.get('max_iters') is not None:
        raise UserError(
            f'max_epochs={max_epochs} has no effect: the training counts '
            f'iterations, train_cfg.max_iters={loop["max_iters"]}; set that.'
        )
    old = loop.get('max_epochs')
    if old is None or max_epochs is None:
        return
    loop['max_epochs'] = max_epochs
    schedulers = content.get('param_scheduler') or []
    for scheduler in (
        [schedulers] if isinstance(schedulers, dict) else schedulers
    ):
        for key in ('end', 'T_max'):
            if scheduler.get('by_epoch', True) and scheduler.get(key) == old:
                scheduler[key] = max_epochs
        if scheduler.get('milestones') and max_epochs != old:
            print_log(
                f'Of max_epochs={max_epochs}: the milestones '
                f'{list(scheduler["milestones"])} of param_scheduler stay, '
                f'which were made for {old} epochs.',
                logger='current',
                level=logging.WARNING,
            )


SETTERS: dict[str, Callable[[ConfigDict, Any], None]] = {
    'data_root': set_data_root,
    'classes': set_classes,
    'max_epochs': set_max_epochs,
    'image_size': set_image_size,
}
"""The function that sets each variable."""


def _hold_data_root(content: ConfigDict, filename: str | None) -> None:
    """Move the data to the variable ``data_root``, or correct the variable."""
    root = _as_path(content.data_root)
    roots = _roots(content)
    if not roots or roots == {_normal(root)}:
        return
    values = values_of_files(filename, 'data_root')
    if not values or (len(values) == 1 and is_set_in(filename, 'data_root')):
        # The root under which the datasets were written is unknown.
        _move_only_root(content, root)
        return
    values = [value for value in (*values, root) if isinstance(value, str)]
    for old, new in itertools.pairwise(values):
        if _normal(old) != _normal(new) and _normal(old) in _roots(content):
            _move_data(content, _normal(old), new)
    # A data_root set at the datasets themselves takes precedence.
    roots = _roots(content)
    if _normal(root) not in roots:
        content.data_root = roots.pop() if len(roots) == 1 else None


def _hold_max_epochs(content: ConfigDict, filename: str | None) -> None:
    """Apply ``max_epochs`` unless ``train_cfg`` was set by itself."""
    wanted = content.max_epochs
    actual = (content.get('train_cfg') or {}).get('max_epochs')
    if actual is None or actual == wanted:
        return
    values = values_of_files(filename, 'max_epochs')
    if len(values) > 1 and actual in values[:-1]:
        set_max_epochs(content, wanted)


def _roots(content: ConfigDict) -> set[str]:
    """List the roots of all datasets."""
    return {
        _normal(dataset['data_root'])
        for split in SPLITS
        for _, dataset in leaf_datasets(content, split)
        if dataset.get('data_root')
    }


def _move_only_root(content: ConfigDict, new_root: str) -> None:
    """Replace the common root of all datasets by ``new_root``."""
    roots = _roots(content)
    if not roots or _normal(new_root) in roots:
        return
    if len(roots) > 1:
        raise UserError(
            f'data_root is {new_root!r}, but the datasets lie under '
            f'{", ".join(map(repr, sorted(roots)))}, so it is not clear which '
            'of these it replaces: set data_root of each dataset instead.'
        )
    _move_data(content, roots.pop(), new_root)


def _move_data(content: ConfigDict, old_root: str, new_root: str) -> None:
    """Replace ``old_root`` in the paths of dataloaders and evaluators."""
    for split in SPLITS:
        for key in (f'{split}_dataloader', f'{split}_evaluator'):
            if content.get(key) is not None:
                content[key] = _moved(content[key], old_root, new_root)


def _as_path(root: Any) -> str:
    """Return ``data_root`` as a string."""
    if not isinstance(root, (str, os.PathLike)):
        raise UserError(
            f'data_root is {root!r}; expected the folder of the dataset.'
        )
    return os.fspath(root)


def _normal(path: Any) -> str:
    """Normalise a path; remote addresses keep their slashes."""
    path = os.fspath(path)
    return path.rstrip('/') if '://' in path else posixpath.normpath(path)


def _moved(node: Any, old_root: str, new_root: str) -> Any:
    """Copy ``node`` with each path under ``old_root`` moved."""
    if isinstance(node, dict):
        # dict.items does not import the classes of a lazy config.
        moved = {
            key: _moved(value, old_root, new_root)
            for key, value in dict.items(node)
        }
        return type(node)(moved)
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(v, old_root, new_root) for v in node)
    if not isinstance(node, str) or not node:
        return node
    path = _normal(node)
    if path == old_root:
        return new_root
    has_moved = _is_under(path, _normal(new_root))
    if _is_under(path, old_root) and not has_moved:
        return posixpath.join(new_root, path[len(old_root) + 1 :])
    return node


def _is_under(path: str, folder: str) -> bool:
    """Return whether a path is a folder or in it."""
    return path == folder or path.startswith(folder + '/')


def _names_of_file(path: str) -> list[str] | None:
    """Read a file with one name per line, if ``path`` is one."""
    if os.path.isfile(path):
        with open(path, encoding='utf-8') as file:
            return [line.strip() for line in file if line.strip()]
    if path.endswith('.txt') or '/' in path:
        raise UserError(
            f'classes is {path!r}, a file that does not exist; expected a '
            "file with a name on each line, or names, such as ('cat', 'dog')."
        )
    return None


def _class_names(classes: Any) -> tuple[str, ...]:
    """Return ``classes`` as a tuple; a single name is one class."""
    # --cfg-options gives a string for one name, and integers for digits.
    if isinstance(classes, str):
        classes = _names_of_file(classes) or classes
    is_one = isinstance(classes, (str, int))
    is_list = isinstance(classes, Sequence) and not is_one
    names = [classes] if is_one else list(classes) if is_list else []
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
