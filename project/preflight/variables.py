# Copyright (c) mmdetr authors. All rights reserved.
"""Carries a config's variables from one place to the whole config.

A variable of a config reaches the places that were written with it when its
own file is read; a child config or ``--cfg-options`` that sets it later
changes the variable alone. ``data_root``, ``classes`` and ``max_epochs`` are
carried on from here; ``resolved_reading.py`` sees to it that this happens
wherever a config is read.
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
from project.utils.errors import UserError


def resolve_config(cfg: Config | dict) -> Config:
    """Apply the variables of a config everywhere.

    - ``data_root``: the root under which the datasets were written is
      exchanged at the start of every path of the dataloaders and evaluators.
      A root that was set at a dataset itself stays.
    - ``classes``: becomes the ``metainfo`` of every dataset, and its length
      every ``num_classes`` of the model outside of the backbone.
    - ``max_epochs``: becomes ``train_cfg.max_epochs``, and the end of the
      schedules that ended with the training.

    Args:
        cfg (Config | dict): A complete config; it is left as it is.

    Returns:
        Config: A copy in which the variables hold everywhere.

    Raises:
        UserError: If ``classes`` is not a list of different names, or it is
            not clear which of several roots ``data_root`` replaces.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(cfg)
    content = cfg._cfg_dict
    if content.get('data_root') is not None:
        _hold_data_root(content, cfg.filename)
    if content.get('classes') is not None:
        set_classes(content, content.classes)
    if content.get('max_epochs') is not None:
        _hold_max_epochs(content, cfg.filename)
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
    visualizer['vis_backends'] = left
    return [
        'TensorBoard, which the config asks for, is not installed, and '
        'nothing is written for it; pip install tensorboard changes that.'
    ]


def set_data_root(content: ConfigDict, new_root: Any) -> None:
    """Move the data of a config whose ``data_root`` held until now.

    Args:
        content (ConfigDict): A complete config; is changed.
        new_root (str | PathLike): The root from now on.

    Raises:
        UserError: If it is no path, or it is not clear which root it
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
    """Tell every dataset the names of the classes, the model their number.

    Args:
        content (ConfigDict): A complete config; is changed.
        classes (Sequence[str] | None): The names; None leaves all as it is.

    Raises:
        UserError: If they are not different names.
    """
    content.classes = classes
    if classes is None:
        return
    content.classes = names = _class_names(classes)
    for split in SPLITS:
        for _, dataset in leaf_datasets(content, split):
            metainfo = dict(dataset.get('metainfo') or {}, classes=names)
            # Without this the 80 colours of COCO stay, and drawing a class
            # beyond them fails.
            metainfo.setdefault('palette', None)
            dataset.metainfo = ConfigDict(metainfo)
    for part in model_configs(content):
        if 'num_classes' in part:
            part.num_classes = len(names)


def set_max_epochs(content: ConfigDict, max_epochs: Any) -> None:
    """Let a training last for other epochs.

    The milestones of the learning rate stay where they are, and are told.

    Args:
        content (ConfigDict): A complete config; is changed.
        max_epochs (int): Epochs from now on.

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
}
"""What each variable does when it is set."""


def _hold_data_root(content: ConfigDict, filename: str | None) -> None:
    """Bring datasets and the variable ``data_root`` in line."""
    root = _as_path(content.data_root)
    roots = _roots(content)
    if not roots or roots == {_normal(root)}:
        return
    values = values_of_files(filename, 'data_root')
    if not values or (len(values) == 1 and is_set_in(filename, 'data_root')):
        # Nothing tells under which root the datasets were written.
        _move_only_root(content, root)
        return
    values = [value for value in (*values, root) if isinstance(value, str)]
    for old, new in itertools.pairwise(values):
        if _normal(old) != _normal(new) and _normal(old) in _roots(content):
            _move_data(content, _normal(old), new)
    # Roots that were set at the datasets themselves are what holds.
    roots = _roots(content)
    if _normal(root) not in roots:
        content.data_root = roots.pop() if len(roots) == 1 else None


def _hold_max_epochs(content: ConfigDict, filename: str | None) -> None:
    """Carry ``max_epochs`` on if a file set it and ``train_cfg`` did not."""
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
    """Exchange the one root of all datasets for ``new_root``."""
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
    """Exchange ``old_root`` in the paths of dataloaders and evaluators."""
    for split in SPLITS:
        for key in (f'{split}_dataloader', f'{split}_evaluator'):
            if content.get(key) is not None:
                content[key] = _moved(content[key], old_root, new_root)


def _as_path(root: Any) -> str:
    """Return ``data_root`` as text."""
    if not isinstance(root, (str, os.PathLike)):
        raise UserError(
            f'data_root is {root!r}; expected the folder of the dataset.'
        )
    return os.fspath(root)


def _normal(path: Any) -> str:
    """Spell a folder in one way; remote addresses keep their slashes."""
    path = os.fspath(path)
    return path.rstrip('/') if '://' in path else posixpath.normpath(path)


def _moved(node: Any, old_root: str, new_root: str) -> Any:
    """Copy ``node`` with each path under ``old_root`` moved."""
    if isinstance(node, dict):
        # Classes of a config in Python's own syntax are not imported yet.
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
    """Tell whether a path is a folder or lies in it."""
    return path == folder or path.startswith(folder + '/')


def _names_of_file(path: str) -> list[str] | None:
    """Read the names in a file, one a line, if ``path`` is one."""
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
    """Return ``classes`` as a tuple of names, a lone name as one class."""
    # --cfg-options makes a string of one name and numbers of digits.
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
