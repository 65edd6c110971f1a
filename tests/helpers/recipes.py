"""What the official code sets, and where a shipped config differs.

``tests/data/recipes/METHOD.json`` holds one line for each shipped config:

- ``official`` and ``source``: the config of the official code, and where it
  is; ``sources`` has the places of single settings.
- ``settings``: path in the resolved config to the value that the official
  code has. Behind a bar stands what is compared of it: ``len``, ``set``
  (sorted), ``short`` (the smaller number of each pair) or ``basename``.
- ``facts``: what is no entry of a config, such as ``param_groups``.
- ``like``: the config that all but the above is the same as, less what is
  listed in ``no_settings`` and ``no_facts``.
"""

import copy
import functools
import inspect
import json
import os.path as osp
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import (
    DATA_SAMPLERS,
    DATASETS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
)
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from torch import nn

from project.checkpoints.model_layout import build_on_meta

FOLDER = Path(__file__).parents[1] / 'data/recipes'
MISSING = object()

_REGISTRIES = (
    MODELS,
    TASK_UTILS,
    DATASETS,
    TRANSFORMS,
    DATA_SAMPLERS,
    LOOPS,
    METRICS,
    OPTIMIZERS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
)
# Read by code, not by a signature. That the multipliers are 1 without an entry
# shows in the groups of parameters; that boxes are clipped in test_configs.py.
_READ_BY_CODE = {
    'optim_wrapper.paramwise_cfg.norm_decay_mult': 1.0,
    'optim_wrapper.paramwise_cfg.bias_decay_mult': 1.0,
    'optim_wrapper.paramwise_cfg.bias_lr_mult': 1.0,
    'train_dataloader.dataset.filter_cfg.min_size': 0,
    'train_dataloader.batch_sampler.type': None,
    'model.test_cfg.clip_bboxes': True,
    'randomness.seed': None,
}
_OPERATORS: dict[str, Callable] = {
    '': lambda value: value,
    'len': len,
    'set': sorted,
    'short': lambda pairs: [min(pair) for pair in pairs],
    'basename': osp.basename,
}


@dataclass(frozen=True)
class Recipe:
    """What the official code sets.

    Attributes:
        official (str): Its config.
        settings (dict[str, Any]): Path in our config, and an operator behind
            a bar, to its value.
        facts (dict[str, Any]): What is no entry of a config.
    """

    official: str
    settings: dict[str, Any]
    facts: dict[str, Any]


@functools.cache
def read_recipes(method: str) -> dict[str, Recipe]:
    """Read the recipes of a method by the path of the shipped config."""
    rows = json.loads((FOLDER / f'{method}.json').read_text())
    recipes: dict[str, Recipe] = {}
    for name, row in rows.items():
        parts = {}
        for part in ('settings', 'facts'):
            like = getattr(recipes[row['like']], part) if 'like' in row else {}
            gone = row.get(f'no_{part}', ())
            kept = {k: v for k, v in like.items() if k not in gone}
            parts[part] = kept | row.get(part, {})
        recipes[name] = Recipe(official=row['official'], **parts)
    return recipes


def differences(
    recipe: Recipe, tree: dict, defaults: 'Defaults | None' = None
) -> dict[str, tuple]:
    """Compare a shipped config with the official code.

    Args:
        recipe (Recipe): What the official code has.
        tree (dict): The resolved config.
        defaults (Defaults, optional): Tells what applies where the config is
            silent. By default what its own classes say.

    Returns:
        dict[str, tuple]: The settings that differ: official and shipped value.
    """
    defaults = defaults or Defaults(tree)
    found = {}
    for setting, official in recipe.settings.items():
        path, _, operator = setting.partition('|')
        shipped = find(tree, path)
        if shipped is MISSING:
            shipped = defaults.of(path)
        if shipped is not None:
            shipped = _OPERATORS[operator](shipped)
        if not same(official, shipped):
            found[setting] = (official, shipped)
    return found


def find(node: Any, path: str) -> Any:
    """Follow a dotted path through dicts and lists; ``MISSING`` if it ends."""
    for part in path.split('.'):
        if isinstance(node, Mapping):
            node = node.get(part, MISSING)
        elif isinstance(node, (list, tuple)) and part.isdigit():
            node = node[int(part)] if int(part) < len(node) else MISSING
        else:
            return MISSING
    return node


def same(one: Any, other: Any) -> bool:
    """Compare values; numbers to 1e-9 of them, lists and tuples alike."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) for key in one
        )
    return one == other


class Defaults:
    """What applies where a config is silent, read off the classes it names.

    Args:
        tree (dict): The resolved config.
    """

    def __init__(self, tree: dict) -> None:
        self.tree = tree
        self._model_text = json.dumps(tree['model'])
        self._found: dict[str, Any] = {}

    def of(self, path: str) -> Any:
        """Find the default of a setting that the config does not have.

        Args:
            path (str): Where it would be.

        Returns:
            Any: The default of the class that would take it; None if the
            class takes no such thing.

        Raises:
            LookupError: If nothing tells who would take it.
        """
        if path not in self._found:
            self._found[path] = self._look_up(path)
        return self._found[path]

    def _look_up(self, path: str) -> Any:
        """Find it by the class of the nearest part of the config."""
        if path in _READ_BY_CODE:
            return _READ_BY_CODE[path]
        keys = path.split('.')
        for length in reversed(range(1, len(keys))):
            owner = self._owner(keys[:length])
            if owner is not None:
                value = find(signature_of(owner), '.'.join(keys[length:]))
                if keys[-1] == 'num_cp':  # mmdet counts from -1
                    value = max(value, 0)
                return None if value is MISSING else value
        raise LookupError(f'nothing tells the default of {path}')

    def _owner(self, keys: list[str]) -> type | None:
        """Find the class that an entry of the config is given to."""
        node = find(self.tree, '.'.join(keys))
        name = node.get('type') if isinstance(node, Mapping) else None
        if name is not None:
            return _registered(name)
        if keys[0] == 'model' and node is not MISSING:
            module = self._module(keys[1:])
            return None if module is None else type(module)
        if keys == ['train_dataloader']:
            return torch.utils.data.DataLoader
        return None

    def _module(self, keys: list[str]) -> nn.Module | None:
        """Find the module that an untyped part of the model becomes."""
        names = {'dn_cfg': 'dn_query_generator', 'layer_cfg': 'layers.0'}
        path = '.'.join(
            names.get(key, key.removesuffix('_cfg')) for key in keys
        )
        try:
            return _small_model(self._model_text).get_submodule(path)
        except AttributeError:
            return None


def _registered(name: str) -> type:
    """Look a class up wherever it is registered."""
    for registry in _REGISTRIES:
        found = registry.get(name)
        if found is not None:
            return found
    raise LookupError(f'{name} is not registered')


@functools.cache
def signature_of(owner: type) -> dict[str, Any]:
    """List the parameters of a class, those that it passes on included."""
    defaults: dict[str, Any] = {}
    for parent in owner.__mro__:
        if '__init__' not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters.values()
        for parameter in parameters:
            defaults.setdefault(parameter.name, parameter.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    if 'settings' in defaults:  # the fields of a dataclass
        defaults |= vars(owner.default_settings)
    return defaults


@functools.cache
def _small_model(text: str) -> nn.Module:
    """Build the model with one layer of each kind, on another backbone."""
    model = json.loads(text)
    for coder in ('encoder', 'decoder'):
        model[coder]['num_layers'] = 1
        model[coder].pop('num_cp', None)
    if 'all_layers_num_gt_repeat' in model['bbox_head']:
        model['bbox_head']['all_layers_num_gt_repeat'] = [1, 1]
    model['backbone'] = dict(type='ResNet', depth=18)
    return build_on_meta(ConfigDict(model))


def parameter_groups(config: Config, num_classes: int) -> list[dict]:
    """Group the trained parameters as mmengine's constructor makes them.

    Args:
        config (Config): A shipped config.
        num_classes (int): Build the model with as many.

    Returns:
        list[dict]: ``lr``, ``weight_decay``, ``tensors`` and ``elements`` of
        each group, sorted by the first two.
    """
    model_config = copy.deepcopy(config.model)
    model_config.backbone.init_cfg = None
    model_config.bbox_head.num_classes = num_classes
    model = build_on_meta(model_config)
    optimizer = build_optim_wrapper(
        model, copy.deepcopy(config.optim_wrapper)
    ).optimizer
    groups: dict[tuple, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        rates = (round(group['lr'], 12), round(group['weight_decay'], 12))
        groups.setdefault(rates, []).extend(
            p for p in group['params'] if p.requires_grad
        )
    return [
        dict(
            lr=lr,
            weight_decay=decay,
            tensors=len(parameters),
            elements=sum(p.numel() for p in parameters),
        )
        for (lr, decay), parameters in sorted(groups.items())
        if parameters
    ]


def mutations(recipe: Recipe, tree: dict) -> Iterator[str]:
    """Change the settings of a recipe in a resolved config, one by one.

    Args:
        recipe (Recipe): Names the settings.
        tree (dict): The config; it is as before at the end.

    Yields:
        str: The setting that has another value now.
    """
    for setting in recipe.settings:
        path, _, operator = setting.partition('|')
        old = find(tree, path)
        *parents, last = path.split('.')
        made = None  # the first part on the way that was not there
        node = tree
        for part in parents:
            child = find(node, part)
            if child is MISSING or child is None:
                made = made or (node, part, child)
                child = node[part] = {}
            node = child
        key = int(last) if isinstance(node, list) else last
        node[key] = _mutated(None if old is MISSING else old, operator)
        yield setting
        if made is not None:
            node, key, old = made
        if old is MISSING:
            del node[key]
        else:
            node[key] = old


def _mutated(value: Any, operator: str) -> Any:
    """Another value, of the same kind where there is one."""
    if operator == 'len':
        return [*value, value[-1]]
    if operator == 'short':
        return [[1, 2], *value[1:]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + 'x'
    if isinstance(value, (list, tuple)):
        return [*value[:-1], _mutated(value[-1], '')] if value else ['one']
    if isinstance(value, Mapping):
        return {**value, 'another': 1}
    return 'another'
