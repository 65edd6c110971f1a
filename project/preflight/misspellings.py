# Copyright (c) mmdetr authors. All rights reserved.
"""Misspelt types and keys, and strings in place of numbers or flags.

The parts of the model report misspelt ones when they are built, which is
early; everything else is built when the training starts, after the data was
read. A string is reported later or never: ``'no'`` counts as true.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets.transforms import Albu
from mmdet.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    WEIGHT_INITIALIZERS,
)
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from project.preflight.config_tree import (
    SPLITS,
    all_dicts,
    evaluators,
    holds_metrics,
    is_a,
    is_known,
    named_dicts,
    registered,
    registered_class,
)
from project.preflight.signatures import accepted_keys, plain_types
from project.utils.errors import UserError, did_you_mean
from project.utils.settings import check_keys, read_setting

_LOADER_KEYS = {
    'dataset',
    'sampler',
    'batch_sampler',
    'num_batch_per_epoch',
    'collate_fn',
    'worker_init_fn',
}
# Dicts that no class is built from.
_PLAIN_DICTS = {
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'randomness': accepted_keys(Runner.set_randomness) or set(),
    'optim_wrapper.paramwise_cfg': {
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'flat_decay_mult',
        'dwconv_decay_mult',
        'dcn_offset_lr_mult',
        'bypass_duplicate',
    },
}
# What a runner and our tools read at the top of a config.
_FLAGS = {
    'resume': bool,
    'overwrite': bool,
    'load_partially': bool,
    'find_unused_parameters': bool,
    'fully_shard': bool,
}
# Packages whose names are not those that pip knows them by.
_PACKAGES = {'mmcls': 'mmcls', 'mmseg': 'mmsegmentation'}


@dataclass(frozen=True)
class Part:
    """A dict of the config that something is built from.

    Attributes:
        name: Where it stands, such as ``train_dataloader.sampler``.
        content: The dict.
        registry: Where its type is looked up.
        default_type: Its type if it names none.
        extra_keys: What is taken out before it is built.
    """

    name: str
    content: dict
    registry: Registry
    default_type: str | None = None
    extra_keys: frozenset[str] = field(default_factory=frozenset)


def check_parts(cfg: Config) -> None:
    """Look up every type outside of the model, and every key and flag.

    Raises:
        UserError: If a type is not registered, or a class does not take a
            key, naming those most alike; or if a number or a flag is none.
    """
    _check_values('', cfg, _FLAGS)
    if cfg.get('default_scope', 'mmdet') == 'mmdet':
        for part in walk(cfg):
            check_part(part)
        for name, content in named_dicts(cfg.get('model'), 'model'):
            for registry in (MODELS, TASK_UTILS):
                found = registered_class(content, registry)
                if is_known(found):
                    _check_values(name, content, plain_types(found))
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict):
            known = _LOADER_KEYS | (accepted_keys(DataLoader) or set())
            check_keys(f'{split}_dataloader', loader, known, 'A dataloader')
    for name, content in all_dicts(cfg):
        # A constructor of one's own reads paramwise_cfg in its own way.
        is_own = 'constructor' in cfg.get(name.partition('.')[0], ())
        if name in _PLAIN_DICTS and not is_own:
            check_keys(name, content, _PLAIN_DICTS[name], 'mmengine')


def check_part(part: Part) -> None:
    """Check one part, as :func:`check_parts`."""
    if part.content.get('_scope_', 'mmdet') != 'mmdet':
        return  # another package looks it up
    kind = part.content.get('type', part.default_type)
    if kind is None:
        raise UserError(f'{part.name} has no type{_other_name(part)}')
    target = kind
    if isinstance(kind, str):
        target = registered(kind, part.registry)
        if target is None:
            raise UserError(unknown_type(part.name, kind, part.registry))
    known = accepted_keys(target)
    if known is not None:
        title = target.__name__ if hasattr(target, '__name__') else kind
        known = known | part.extra_keys | {'type'}
        check_keys(part.name, part.content, known, title)
    if is_known(target):
        _check_values(part.name, part.content, plain_types(target))


def _check_values(
    name: str, content: Mapping[str, Any], kinds: Mapping[str, type]
) -> None:
    """Refuse strings where numbers or flags belong.

    Nothing else: classes accept more than their annotations say.
    """
    for key, value in content.items():
        if key in kinds and isinstance(value, str):
            expected = bool if kinds[key] is bool else float
            read_setting(expected, value, f'{name}.{key}'.lstrip('.'))


def unknown_type(name: str, kind: str, registry: Registry) -> str:
    """Tell that a type is not registered.

    Returns:
        str: A sentence with what may have been meant, or the package to
        install.
    """
    scope, _, rest = kind.rpartition('.')
    if scope and '.' not in scope and not _can_import(scope):
        return (
            f'{name}.type={kind!r} is of the package {scope}, which is not '
            f'installed: pip install {_PACKAGES.get(scope, scope)}.'
        )
    hint = did_you_mean(rest, names_of(registry))
    return (
        f'{name}.type={kind!r} is not registered{hint} (A class of your own '
        'is registered by a module in custom_imports.)'
    )


def names_of(registry: Registry) -> set[str]:
    """List all names that a registry finds, also in its parents."""
    registry.import_from_location()
    names: set[str] = set()
    while registry is not None:
        names |= set(registry.module_dict)
        registry = registry.parent
    return names


def _can_import(package: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _other_name(part: Part) -> str:
    """Guess which default hook was meant by one without a type."""
    head, _, last = part.name.rpartition('.')
    if head != 'default_hooks':
        return '.'
    names = (
        'runtime_info',
        'timer',
        'sampler_seed',
        'logger',
        'param_scheduler',
        'checkpoint',
        'visualization',
    )
    return did_you_mean(last, names)


def walk(cfg: Config) -> Iterator[Part]:
    """Go through everything that is built besides the model."""
    for split in SPLITS:
        yield from _loader_parts(cfg, split)
        yield from _evaluator_parts(cfg, split)
        loop = cfg.get(f'{split}_cfg')
        if isinstance(loop, dict) and 'type' in loop:
            yield from _part(f'{split}_cfg', loop, LOOPS)
    for name, hook in (cfg.get('default_hooks') or {}).items():
        yield from _part(f'default_hooks.{name}', hook, HOOKS, {'priority'})
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        name = f'custom_hooks[{index}]'
        yield from _part(name, hook, HOOKS, {'priority'})
    yield from _optimizer_parts(cfg)
    yield from _visualizer_parts(cfg)
    for name, model in named_dicts(cfg.get('model'), 'model'):
        inits = model.get('init_cfg')
        for init in inits if isinstance(inits, (list, tuple)) else [inits]:
            # Some backbones read a checkpoint of it by themselves.
            if isinstance(init, dict) and 'type' in init:
                yield from _part(
                    f'{name}.init_cfg', init, WEIGHT_INITIALIZERS, {'override'}
                )


def _part(
    name: str,
    content: Any,
    registry: Registry,
    extra_keys: Collection[str] = (),
    default_type: str | None = None,
) -> Iterator[Part]:
    """Yield a part unless it was built by the config itself, or is None."""
    if isinstance(content, dict):
        yield Part(
            name, content, registry, default_type, frozenset(extra_keys)
        )


def _evaluator_parts(cfg: Config, split: str) -> Iterator[Part]:
    name = f'{split}_evaluator'
    evaluator = cfg.get(name)
    if holds_metrics(evaluator):
        yield from _part(name, evaluator, EVALUATOR, default_type='Evaluator')
    for place, metric in evaluators(cfg, split):
        yield from _part(place, metric, METRICS)


def _loader_parts(cfg: Config, split: str) -> Iterator[Part]:
    name = f'{split}_dataloader'
    loader = cfg.get(name)
    if not isinstance(loader, dict):
        return
    for key in ('sampler', 'batch_sampler'):
        yield from _part(f'{name}.{key}', loader.get(key), DATA_SAMPLERS)
    yield from _dataset_parts(f'{name}.dataset', loader.get('dataset'))


def _dataset_parts(name: str, dataset: Any) -> Iterator[Part]:
    """A dataset, its transforms, and what it wraps."""
    if not isinstance(dataset, dict):
        return
    yield from _part(name, dataset, DATASETS)
    yield from _transform_parts(f'{name}.pipeline', dataset.get('pipeline'))
    yield from _dataset_parts(f'{name}.dataset', dataset.get('dataset'))
    children = dataset.get('datasets')
    if isinstance(children, (list, tuple)):
        for index, child in enumerate(children):
            yield from _dataset_parts(f'{name}.datasets[{index}]', child)


def _transform_parts(name: str, transforms: Any) -> Iterator[Part]:
    """The transforms of a pipeline and those that they choose from."""
    if isinstance(transforms, dict):
        if 'type' in transforms:
            yield from _part(name, transforms, TRANSFORMS)
            if not _chooses_from_registry(transforms):
                return
        yield from _transform_parts(
            f'{name}.transforms', transforms.get('transforms')
        )
    elif isinstance(transforms, (list, tuple)):
        for index, part in enumerate(transforms):
            yield from _transform_parts(f'{name}[{index}]', part)


def _chooses_from_registry(transform: dict) -> bool:
    """Tell whether what a transform wraps is looked up among transforms.

    Those of mmdet's ``Albu`` are albumentations', and a class of the user's
    own may take them from anywhere.
    """
    found = registered_class(transform, TRANSFORMS)
    return is_known(found) and not is_a(found, Albu)


def _optimizer_parts(cfg: Config) -> Iterator[Part]:
    wrapper = cfg.get('optim_wrapper')
    # Another constructor may take the wrapper apart in its own way.
    if isinstance(wrapper, dict) and 'constructor' not in wrapper:
        extra = {'paramwise_cfg', 'constructor'}
        yield from _part(
            'optim_wrapper', wrapper, OPTIM_WRAPPERS, extra, 'OptimWrapper'
        )
        yield from _part(
            'optim_wrapper.optimizer', wrapper.get('optimizer'), OPTIMIZERS
        )
    schedulers = cfg.get('param_scheduler')
    if isinstance(schedulers, dict) and 'type' in schedulers:
        schedulers = [schedulers]
    if isinstance(schedulers, (list, tuple)):
        for index, scheduler in enumerate(schedulers):
            yield from _part(
                f'param_scheduler[{index}]',
                scheduler,
                PARAM_SCHEDULERS,
                {'convert_to_iter_based', 'epoch_length'},
            )


def _visualizer_parts(cfg: Config) -> Iterator[Part]:
    yield from _part(
        'log_processor',
        cfg.get('log_processor'),
        LOG_PROCESSORS,
        default_type='LogProcessor',
    )
    visualizer = cfg.get('visualizer')
    if not isinstance(visualizer, dict):
        return
    yield from _part('visualizer', visualizer, VISUALIZERS)
    for index, backend in enumerate(visualizer.get('vis_backends') or ()):
        name = f'visualizer.vis_backends[{index}]'
        yield from _part(name, backend, VISBACKENDS)
