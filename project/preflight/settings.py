# Copyright (c) mmdetr authors. All rights reserved.
"""Numbers and names in a config that would be found wrong late or never."""

from collections.abc import Iterator
from typing import Any

from mmdet.evaluation.metrics import CocoMetric
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import HOOKS, METRICS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from project.evaluation import FastCocoMetric
from project.preflight.config_tree import (
    SPLITS,
    evaluators,
    is_a,
    is_known,
    registered_class,
)
from project.utils.coco_metrics import AP_ITEMS, RECALL_ITEMS
from project.utils.errors import UserError, did_you_mean, most_alike

# What a runner reads of a config, and what mmdet's and our configs define.
_READ_KEYS = {
    'model',
    'work_dir',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'auto_scale_lr',
    'optim_wrapper',
    'param_scheduler',
    'val_evaluator',
    'test_evaluator',
    'default_hooks',
    'custom_hooks',
    'data_preprocessor',
    'load_from',
    'load_partially',
    'max_broken_images',
    'overwrite',
    'resume',
    'launcher',
    'env_cfg',
    'log_processor',
    'log_level',
    'visualizer',
    'default_scope',
    'randomness',
    'experiment_name',
    'runner_type',
    'custom_imports',
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
    'compile',
    'data_root',
    'classes',
    'max_epochs',
    'tta_model',
    'tta_pipeline',
}
_VARIABLES = {
    'dataset_type',
    'backend_args',
    'train_pipeline',
    'val_pipeline',
    'test_pipeline',
    'train_dataset',
    'val_dataset',
    'test_dataset',
    'vis_backends',
    'max_iters',
    'model_cfg',
    'base_lr',
    'classwise',
    'metainfo',
    'class_name',
    'num_classes',
}
_LOOP_NUMBERS = ('max_epochs', 'max_iters', 'val_interval')


def check_settings(cfg: Config) -> list[str]:
    """Look at what no class checks, or not before an epoch is over.

    Args:
        cfg (Config): A complete config.

    Returns:
        list[str]: What looks like a mistake and may be meant, a sentence
        each.

    Raises:
        UserError: If it cannot work.
    """
    _check_loaders(cfg)
    _check_loops(cfg)
    _check_rates(cfg)
    _check_counts(cfg)
    _check_metrics(cfg)
    _check_monitored(cfg)
    _check_paramwise(cfg)
    return [*_misspelt_variables(cfg), *_unread_test_cfg(cfg)]


def stop_idle_workers(cfg: Config) -> None:
    """Take back ``persistent_workers`` where there are no workers.

    The shipped configs keep theirs, so ``num_workers=0`` alone would end in
    an error of the dataloader.

    Args:
        cfg (Config): A config; is changed.
    """
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and loader.get('num_workers') == 0:
            if loader.get('persistent_workers'):
                loader['persistent_workers'] = False
            if loader.get('prefetch_factor') is not None:
                loader['prefetch_factor'] = None


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``.

    Args:
        name (str): Where it stands in the config.
        value (Any): The value; None passes.
        least (int): The smallest that can work. Defaults to 1.

    Raises:
        UserError: If it is anything else.
    """
    if value is not None and not (_is_whole(value) and value >= least):
        raise UserError(
            f'{name}={value!r} should be a whole number, {least} or more.'
        )


def _is_whole(value: Any) -> bool:
    """Tell whether it is a whole number, which may have been computed."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _check_loaders(cfg: Config) -> None:
    for split in SPLITS:
        name = f'{split}_dataloader'
        loader = cfg.get(name)
        if isinstance(loader, dict):
            check_count(f'{name}.batch_size', loader.get('batch_size'))
            check_count(f'{name}.num_workers', loader.get('num_workers'), 0)


def _check_loops(cfg: Config) -> None:
    loop = cfg.get('train_cfg')
    if isinstance(loop, dict):
        for key in _LOOP_NUMBERS:
            check_count(f'train_cfg.{key}', loop.get(key))
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, dict):
        check_count(
            'optim_wrapper.accumulative_counts',
            wrapper.get('accumulative_counts'),
        )


def _check_rates(cfg: Config) -> None:
    """Check what optimizer and schedulers would fail on, or ignore."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    lr = optimizer.get('lr') if isinstance(optimizer, dict) else None
    if lr is not None and not (isinstance(lr, (int, float)) and lr >= 0):
        raise UserError(
            f'optim_wrapper.optimizer.lr={lr!r} should be a number, 0 or more.'
        )
    schedulers = cfg.get('param_scheduler')
    for index, scheduler in enumerate(
        schedulers if isinstance(schedulers, (list, tuple)) else ()
    ):
        steps = isinstance(scheduler, dict) and scheduler.get('milestones')
        is_list = isinstance(steps, (list, tuple))
        if steps and not (is_list and all(map(_is_whole, steps))):
            raise UserError(
                f'param_scheduler[{index}].milestones={steps!r} should be a '
                'list of whole numbers.'
            )


def _check_counts(cfg: Config) -> None:
    """Check the numbers that many models share."""
    model = bare_model(cfg)
    for key in ('num_queries', 'num_feature_levels'):
        check_count(f'model.{key}', model.get(key))
    if not is_a(registered_class(model, MODELS), DetectionTransformer):
        return  # -1 means all to some of the others
    test_cfg = model.get('test_cfg') or {}
    check_count('model.test_cfg.max_per_img', test_cfg.get('max_per_img'))
    for name in ('encoder', 'decoder'):
        coder = model.get(name) or {}
        num_cp = coder.get('num_cp')
        layers = coder.get('num_layers')
        check_count(f'model.{name}.num_layers', layers, 0)
        check_count(f'model.{name}.num_cp', num_cp, -1)
        if num_cp is not None and layers is not None and num_cp > layers:
            raise UserError(
                f'model.{name}.num_cp={num_cp} asks for more layers to be '
                f'recomputed than model.{name}.num_layers={layers}.'
            )


def bare_model(cfg: Config) -> ConfigDict:
    """Find the model in what augments its tests.

    Args:
        cfg (Config): A complete config.

    Returns:
        ConfigDict: The detector's own config.
    """
    model = cfg.get('model') or ConfigDict()
    while isinstance(model.get('module'), dict):
        model = model.module
    return model


def _check_metrics(cfg: Config) -> None:
    """Refuse to evaluate masks of models that have none."""
    detector = registered_class(bare_model(cfg), MODELS)
    # One of the user's own may have them.
    boxes_only = is_a(detector, DetectionTransformer) and is_known(detector)
    for split in ('val', 'test'):
        for name, metric in evaluators(cfg, split):
            wanted = metric.get('metric', 'bbox')
            wanted = [wanted] if isinstance(wanted, str) else wanted
            found = registered_class(metric, METRICS)
            if boxes_only and is_a(found, CocoMetric) and 'segm' in wanted:
                raise UserError(
                    f"{name}.metric={wanted!r} evaluates masks ('segm'), but "
                    f"the model gives boxes alone: set it to 'bbox'."
                )


def _check_monitored(cfg: Config) -> None:
    """Refuse to keep the best by a metric that nobody computes."""
    known = _metric_names(cfg)
    if known is None:
        return
    for name, key, wanted in _monitored(cfg):
        if wanted != 'auto' and wanted not in known:
            alike = did_you_mean(wanted, sorted(known), 0.4)
            raise UserError(
                f'{name}.{key}={wanted!r} is no metric of val_evaluator{alike}'
            )


def _monitored(cfg: Config) -> Iterator[tuple[str, str, str]]:
    hooks = [
        (f'default_hooks.{name}', hook)
        for name, hook in (cfg.get('default_hooks') or {}).items()
    ]
    hooks += [
        (f'custom_hooks[{index}]', hook)
        for index, hook in enumerate(cfg.get('custom_hooks') or ())
    ]
    for name, hook in hooks:
        if not isinstance(hook, dict):
            continue
        found = registered_class(hook, HOOKS)
        for parent, key in (
            (CheckpointHook, 'save_best'),
            (EarlyStoppingHook, 'monitor'),
        ):
            wanted = hook.get(key)
            if is_a(found, parent) and wanted:
                names = [wanted] if isinstance(wanted, str) else wanted
                yield from ((name, key, each) for each in names)


def _metric_names(cfg: Config) -> set[str] | None:
    """The names that validation gives; None if that is not known."""
    names: set[str] = set()
    for _, metric in evaluators(cfg, 'val'):
        found = registered_class(metric, METRICS)
        if found not in (CocoMetric, FastCocoMetric):
            return None
        # What depends on settings that are rarely set.
        if metric.get('metric_items') or metric.get('proposal_nums'):
            return None
        kinds = metric.get('metric', 'bbox')
        kinds = [kinds] if isinstance(kinds, str) else kinds
        prefix = metric.get('prefix') or CocoMetric.default_prefix
        items: list[str] = []
        for kind in kinds:
            if kind in ('bbox', 'segm'):
                items += [f'{kind}_{item}' for item in AP_ITEMS]
            else:
                items += RECALL_ITEMS
        if metric.get('classwise'):
            items += [f'{n}_precision' for n in cfg.get('classes') or ()]
            if not cfg.get('classes'):
                return None
        names |= {f'{prefix}/{item}' for item in items}
    return names or None


def _check_paramwise(cfg: Config) -> None:
    """Refuse a misspelt key, which mmengine's constructor never looks at."""
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or 'constructor' in wrapper:
        return
    known = (
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'flat_decay_mult',
        'dwconv_decay_mult',
        'dcn_offset_lr_mult',
        'bypass_duplicate',
    )
    settings = wrapper.get('paramwise_cfg') or {}
    for key in settings:
        if key not in (*known, '_scope_'):
            raise UserError(
                f'optim_wrapper.paramwise_cfg.{key} has no effect'
                f'{did_you_mean(key, known)}'
            )


def _misspelt_variables(cfg: Config) -> list[str]:
    """Name variables that look like one that is read."""
    sentences = []
    known = _READ_KEYS | _VARIABLES
    for key in cfg:
        if key in known or key.startswith('_'):
            continue
        if any(key.startswith(f'{name}_') for name in _READ_KEYS):
            continue  # one of several, such as data_root_07
        alike = most_alike(key, known, count=1, cutoff=0.85)
        if alike and alike[0] in _READ_KEYS:
            sentences.append(
                f'{key!r} of the config is read by nothing but the config '
                f'itself: did you mean {alike[0]}?'
            )
    return sentences


def _unread_test_cfg(cfg: Config) -> list[str]:
    """Refuse misspelt keys of ``test_cfg``; name others without effect."""
    model = bare_model(cfg)
    head = registered_class(model.get('bbox_head') or {}, MODELS)
    known = set(getattr(head, 'test_settings', ()))
    sentences: list[str] = []
    if not known:  # a head of mmdet, or a model that was built before
        return sentences
    for key in model.get('test_cfg') or {}:
        if key in known or key == '_scope_':
            continue
        if most_alike(key, known):
            raise UserError(
                f'model.test_cfg.{key} has no effect{did_you_mean(key, known)}'
            )
        sentences.append(
            f'model.test_cfg.{key} has no effect: {head.__name__} reads '
            f'{", ".join(sorted(known))}.'
        )
    return sentences
