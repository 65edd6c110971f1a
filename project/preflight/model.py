# Copyright (c) mmdetr authors. All rights reserved.
"""Parts of a config that contradict each other, before anything is built."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.datasets.transforms import MultiBranch
from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.models.data_preprocessors import (
    DetDataPreprocessor,
    MultiBranchDataPreprocessor,
)
from mmdet.models.dense_heads import DETRHead
from mmdet.registry import HOOKS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict

from project.preflight.config_tree import (
    SPLITS,
    dataset_classes,
    is_a,
    leaf_datasets,
    leaf_pipelines,
    model_configs,
    nested_transforms,
    registered_class,
)
from project.preflight.model_dimensions import check_seams
from project.preflight.settings import bare_model
from project.utils.errors import UserError
from project.utils.settings import PositiveCount, read_setting


def check_model(cfg: Config) -> None:
    """Compare the numbers of the model with each other and with the data.

    Args:
        cfg (Config): A config after ``resolve_config``.

    Raises:
        UserError: If the model counts other classes than a dataset, or is
            asked for more detections than it has queries times classes, or
            lacks a preprocessor, or its parts do not fit together.
    """
    for split in SPLITS:
        for name, dataset in leaf_datasets(cfg, split):
            _check_num_classes(cfg, name, dataset)
    _check_num_detections(cfg)
    _check_part(cfg, 'data_preprocessor', 'what makes batches of images')
    check_seams(cfg)


def _check_num_classes(cfg: Config, name: str, dataset: ConfigDict) -> None:
    """Raise if a part of the model counts other classes than ``dataset``."""
    classes = dataset_classes(dataset)
    if classes is None:
        return
    for part in model_configs(cfg):
        num_classes = part.get('num_classes', len(classes))
        if num_classes != len(classes):
            raise UserError(
                f'{part.get("type", "The model")} has num_classes='
                f'{num_classes}, but {name} has {len(classes)} classes; set '
                'classes=(...) in the config and both follow.'
            )


def _check_num_detections(cfg: Config) -> None:
    """Raise if more detections are asked for than there are scores."""
    model = bare_model(cfg)
    max_per_img = (model.get('test_cfg') or {}).get('max_per_img')
    num_queries = count_queries(model)
    num_classes = (model.get('bbox_head') or {}).get('num_classes')
    if max_per_img is None or num_queries is None or num_classes is None:
        return
    if max_per_img > num_queries * num_classes:
        raise UserError(
            f'model.test_cfg.max_per_img={max_per_img} asks for more '
            f'detections than {num_queries} queries times {num_classes} '
            f'classes can give; set it to {num_queries * num_classes} or less.'
        )


def count_queries(model: ConfigDict) -> int | None:
    """Count the queries of a model's config, each with its patterns."""
    num_queries = model.get('num_queries')
    if num_queries is None:
        return None
    read_setting(PositiveCount, num_queries, 'model.num_queries')
    return num_queries * max(model.get('num_patterns') or 1, 1)


def check_trainable(cfg: Config) -> None:
    """Raise unless the model can be trained on what its pipelines make.

    Raises:
        UserError: If a DETR has no ``train_cfg``, or a pipeline of a training
            set, or one that a hook puts in its place later, makes branches
            that the model does not take, or none where it expects them.
    """
    _check_part(cfg, 'train_cfg', 'the assigner of queries to objects')
    _check_branches(cfg)


def _check_part(cfg: Config, key: str, content: str) -> None:
    """Raise if a DETR lacks a part that all but a user's own heads need."""
    model = cfg.get('model') or {}
    head = registered_class(model.get('bbox_head') or {}, MODELS)
    if model.get(key) or not is_a(head, DETRHead):
        return
    if head.__module__.startswith(('mmdet.', 'project.')):
        raise UserError(
            f'model.{key} is {model.get(key)!r}; expected a dict with '
            f'{content}, as in configs/_base_/models.'
        )


def _check_branches(cfg: Config) -> None:
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or {}
    takes = registered_class(preprocessor, MODELS)
    for name, dataset, transforms in leaf_pipelines(cfg, 'train'):
        _check_pipeline(f'the pipeline of {name}', transforms, takes)
        for place, pipeline in _later_pipelines(cfg):
            wrapped = name != 'train_dataloader.dataset'
            if wrapped:
                raise UserError(
                    f'{place} exchanges the pipeline of a dataset that stands '
                    f'in train_dataloader.dataset itself, but here it is '
                    f'wrapped, as {name} ({dataset.get("type")}): the hook '
                    'would not reach it.'
                )
            _check_later_pipeline(place, pipeline, takes)


def _check_later_pipeline(place: str, pipeline: Sequence, takes: Any) -> None:
    """Raise unless a preprocessor also takes what a hook puts in place."""
    takes_both = 'ReaugmentationDataPreprocessor'
    if is_a(takes, MODELS.get(takes_both)):
        return
    if is_a(takes, MultiBranchDataPreprocessor) and not _branches(pipeline):
        raise UserError(
            f'{place} has no MultiBranch to make the branches (weak, strong) '
            f'that model.data_preprocessor, a {takes.__name__}, takes; set '
            f'model.data_preprocessor.type={takes_both!r}, which takes images '
            'without them, too.'
        )
    _check_pipeline(place, pipeline, takes)


def _branches(transforms: Sequence) -> bool:
    """Whether a pipeline makes branches."""
    return any(
        is_a(registered_class(part, TRANSFORMS), MultiBranch)
        for part in nested_transforms(transforms)
    )


def _later_pipelines(cfg: Config) -> Iterator[tuple[str, list]]:
    """Find the pipelines that hooks put in place during the training."""
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if not isinstance(hook, dict):
            continue
        if is_a(registered_class(hook, HOOKS), PipelineSwitchHook):
            place = f'custom_hooks[{index}].switch_pipeline'
            yield place, hook.get('switch_pipeline') or []


def _at_start(name: str) -> str:
    """Begin a sentence with a name, unless it is one of the config."""
    return name[0].upper() + name[1:] if ' ' in name else name


def _check_pipeline(name: str, transforms: Sequence, takes: Any) -> None:
    """Raise unless a preprocessor takes what a pipeline makes."""
    makes_branches = _branches(transforms)
    if not makes_branches and is_a(takes, MultiBranchDataPreprocessor):
        raise UserError(
            f'model.data_preprocessor, a {takes.__name__}, takes '
            f'images in branches (weak, strong), but {name} has no '
            'MultiBranch to make them: inherit '
            'configs/_base_/datasets/coco_detection_re_aug.py, or set '
            'model.data_preprocessor to the data_preprocessor that it has '
            'within.'
        )
    if makes_branches and is_a(takes, DetDataPreprocessor):
        raise UserError(
            f'{_at_start(name)} has a MultiBranch, but '
            f'model.data_preprocessor, a {takes.__name__}, takes no '
            'branches: set it to '
            "dict(type='MultiBranchDataPreprocessor', "
            'data_preprocessor=dict(...)) with its present settings '
            'within, as configs/_base_/models/hpr_r50.py does.'
        )
