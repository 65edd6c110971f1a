# Copyright (c) mmdetr authors. All rights reserved.
"""Numbers and names in a config that would be found wrong late or never."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from mmdet.evaluation.metrics import CocoMetric
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import HOOKS, METRICS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import Runner

from project.evaluation import FastCocoMetric
from project.preflight.config_tree import (
    SPLITS,
    all_dicts,
    evaluators,
    is_a,
    is_known,
    metric_kinds,
    registered_class,
)
from project.preflight.signatures import listed_keys
from project.utils.coco_metrics import AP_ITEMS, RECALL_ITEMS
from project.utils.errors import UserError, did_you_mean, most_alike
from project.utils.settings import (
    Count,
    IoU,
    NonNegative,
    Positive,
    PositiveCount,
    Range,
    check_keys,
    read_setting,
)

# What a runner reads of a config, and what mmdet's and our configs define.
_READ_KEYS = listed_keys(Runner) - {'cfg'} | {
    'load_partially',
    'max_broken_images',
    'overwrite',
    'runner_type',
    'custom_imports',
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'fully_shard',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
    'compile',
    'fast_runtime',
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
# Where a number stands, without indices, and what it may be; None passes.
_NUMBERS = {
    **{f'{split}_dataloader.batch_size': PositiveCount for split in SPLITS},
    **{f'{split}_dataloader.num_workers': Count for split in SPLITS},
    'train_cfg.max_epochs': PositiveCount,
    'train_cfg.max_iters': PositiveCount,
    'train_cfg.val_interval': PositiveCount,
    'auto_scale_lr.base_batch_size': PositiveCount,
    'auto_scale_lr.enable': bool,
    'optim_wrapper.accumulative_counts': PositiveCount,
    'optim_wrapper.clip_grad.clip_value': Positive,
    'optim_wrapper.clip_grad.max_norm': Positive,
    'optim_wrapper.optimizer.lr': NonNegative,
    'param_scheduler.milestones': list[int],
    'randomness.seed': Count,
    'model.data_preprocessor.pad_size_divisor': PositiveCount,
    'model.num_queries': PositiveCount,
    'model.num_feature_levels': PositiveCount,
}
_CODERS = ('encoder', 'decoder')
# In some of the other detectors -1 means all.
_NUMBERS_OF_DETR = {
    'model.test_cfg.max_per_img': PositiveCount,
    **{f'model.{name}.num_layers': Count for name in _CODERS},
    **{f'model.{name}.num_cp': Annotated[int, Range(-1)] for name in _CODERS},
}


def check_settings(cfg: Config) -> list[str]:
    """Look at what no class checks, or not before an epoch is over.

    Returns:
        list[str]: What looks like a mistake and may be meant, a sentence
        each.

    Raises:
        UserError: If it cannot work.
    """
    _check_numbers(cfg)
    _check_metrics(cfg)
    _check_monitored(cfg)
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


def _check_numbers(cfg: Config) -> None:
    """Refuse numbers that no class checks, or not before an epoch is over."""
    detector = registered_class(bare_model(cfg), MODELS)
    is_detr = is_a(detector, DetectionTransformer)
    kinds = _NUMBERS | (_NUMBERS_OF_DETR if is_detr else {})
    for name, part in all_dicts(cfg):
        place = re.sub(r'\[\d+\]|\.module\b', '', name)
        for key, value in part.items():
            kind = kinds.get(f'{place}.{key}')
            if kind and value is not None:
                read_setting(kind, value, f'{name}.{key}')
        num_cp, layers = part.get('num_cp'), part.get('num_layers')
        is_coder = f'{place}.num_cp' in kinds
        if is_coder and num_cp and layers is not None and num_cp > layers:
            raise UserError(
                f'{name}.num_cp={num_cp} asks for more layers to be '
                f'recomputed than {name}.num_layers={layers}.'
            )


def bare_model(cfg: Config) -> ConfigDict:
    """Find the model in what augments its tests."""
    model = cfg.get('model') or ConfigDict()
    while isinstance(model.get('module'), dict):
        model = model.module
    return model


def _check_metrics(cfg: Config) -> None:
    """Refuse masks of models that have none, and what no metric computes."""
    detector = registered_class(bare_model(cfg), MODELS)
    # One of the user's own may have them.
    boxes_only = is_a(detector, DetectionTransformer) and is_known(detector)
    for split in ('val', 'test'):
        for name, metric in evaluators(cfg, split):
            wanted = metric_kinds(metric)
            found = registered_class(metric, METRICS)
            if found in (CocoMetric, FastCocoMetric):
                _check_items(name, metric)
            if boxes_only and is_a(found, CocoMetric) and 'segm' in wanted:
                raise UserError(
                    f"{name}.metric={wanted!r} evaluates masks ('segm'), but "
                    f"the model gives boxes alone: set it to 'bbox'."
                )


def _check_items(name: str, metric: ConfigDict) -> None:
    """Refuse what COCO's metric would find wrong after all images."""
    known = (*AP_ITEMS, *RECALL_ITEMS)
    read_setting(list[IoU] | None, metric.get('iou_thrs'), f'{name}.iou_thrs')
    for item in metric.get('metric_items') or ():
        if item not in known:
            raise UserError(
                f'{name}.metric_items: {item!r} is no metric of COCO'
                f'{did_you_mean(str(item), known)}'
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
        prefix = metric.get('prefix') or CocoMetric.default_prefix
        items: list[str] = []
        for kind in metric_kinds(metric):
            if kind in ('bbox', 'segm'):
                items += [f'{kind}_{item}' for item in AP_ITEMS]
            else:
                items += RECALL_ITEMS
        if metric.get('classwise'):
            items += [f'{n}_precision' for n in cfg.get('classes') or ()]
            if not cfg.get('classes'):
                return None
        names |= {f'{prefix}/{item}' for item in items}
    hooks = cfg.get('custom_hooks') or ()
    if names and any(_adds_the_loss(hook) for hook in hooks):
        names.add('val_loss')
    return names or None


def _adds_the_loss(hook: Any) -> bool:
    return isinstance(hook, dict) and hook.get('type') == 'ValidationLossHook'


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
    settings = getattr(head, 'default_settings', None)
    if settings is None:  # a head of mmdet, or a model that was built before
        return []
    known = vars(settings).keys()
    unread = sorted(set(model.get('test_cfg') or {}) - {*known, '_scope_'})
    misspelt = [key for key in unread if most_alike(key, known)]
    check_keys('model.test_cfg', misspelt, known, head.__name__)
    return [
        f'model.test_cfg.{key} has no effect: {head.__name__} reads '
        f'{", ".join(sorted(known))}.'
        for key in unread
    ]
