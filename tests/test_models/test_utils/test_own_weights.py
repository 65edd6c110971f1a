# Copyright (c) mmdetr authors. All rights reserved.
"""No checkpoint of other classes leaves a model of ours half random."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import ExponentialMovingAverage, initialize
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from project.utils.errors import UserError
from tests.helpers.toy import tiny_model_config

H_DETR = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
OTHER_FAMILIES = [
    'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
    'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    'dn_detr/dn-deformable-detr_r50_8xb2-12e_coco.py',
    'align_detr/align-detr_r50_8xb2-12e_coco.py',
]


def model_of(config: str, num_classes: int = 80, **changes: Any) -> nn.Module:
    model = tiny_model_config(config, **changes)
    model.bbox_head.num_classes = num_classes
    model.test_cfg.max_per_img = 10
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def save(path: Path, weights: dict[str, Tensor]) -> str:
    torch.save(dict(state_dict=weights), path)
    return str(path)


@pytest.fixture(scope='module')
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of an H-DETR with 80 classes."""
    path = tmp_path_factory.mktemp('old') / '80.pth'
    return save(path, model_of(H_DETR).state_dict())


OTHER = r'The checkpoint has 80 classes and this HDETR 3: set classes=\(\.\.\.'


@pytest.fixture
def model() -> nn.Module:
    return model_of(H_DETR, 3)


def test_mmengine_raises_where_it_printed(old: str, model: nn.Module) -> None:
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=OTHER):
        load_checkpoint(model, old)
    # Some are memory as it was found, which may hold NaN.
    torch.testing.assert_close(
        dict(model.state_dict()), dict(start), rtol=0, atol=0, equal_nan=True
    )
    with pytest.raises(UserError, match='--num-classes 3'):
        model.load_state_dict(torch.load(old)['state_dict'], strict=False)


@pytest.mark.parametrize('config', OTHER_FAMILIES)
def test_every_family_counts_its_classes(config: str) -> None:
    weights = model_of(config, 80).state_dict()
    with pytest.raises(UserError, match=r'has 80 classes and this \w+ 3: set'):
        model_of(config, 3).load_state_dict(weights, strict=False)


def test_a_wrapped_model_does_too(old: str, model: nn.Module) -> None:
    weights = torch.load(old)['state_dict']
    average = ExponentialMovingAverage(model)
    with pytest.raises(UserError, match=OTHER):
        average.load_state_dict(
            {f'module.{k}': v for k, v in weights.items()}, strict=False
        )
    tta = nn.Module()
    tta.module = model
    with pytest.raises(UserError, match=OTHER):
        tta.load_state_dict(
            {f'module.{k}': v for k, v in weights.items()}, strict=False
        )


def test_so_does_pretrained_init(old: str, model: nn.Module) -> None:
    init_cfg = dict(type='Pretrained', checkpoint=old)
    model.init_cfg = init_cfg
    with pytest.raises(UserError, match=OTHER):
        model.init_weights()
    with pytest.raises(UserError, match='80 classes and this HDETRHead 3'):
        initialize(model.bbox_head, dict(init_cfg, prefix='bbox_head'))


@pytest.mark.parametrize('semi', [False, True])
def test_a_teacher_and_a_student_do(old: str, semi: bool) -> None:
    """mmdet's detectors for semi-supervised training hold ours twice."""
    from mmdet.models.detectors import SemiBaseDetector

    detector = tiny_model_config(H_DETR)
    detector.bbox_head.num_classes = 3
    detector.test_cfg.max_per_img = 10
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = SemiBaseDetector(detector, dict(freeze_teacher=False))
    weights = torch.load(old)['state_dict']
    if semi:
        weights = {f'student.{k}': v for k, v in weights.items()}
    with pytest.raises(UserError, match=OTHER):
        model.load_state_dict(weights, strict=False)


def test_what_is_no_checkpoint_of_it_raises(
    tmp_path: Path, model: nn.Module
) -> None:
    """mmengine listed all names as missing and went on at random."""
    path = save(tmp_path / 'other.pth', {'conv1.weight': torch.zeros(3)})
    with pytest.raises(
        UserError, match=r'has conv1\.weight, none of which is'
    ):
        load_checkpoint(model, path)


def test_an_official_checkpoint_is_to_be_converted(
    tmp_path: Path, model: nn.Module
) -> None:
    path = str(tmp_path / 'official.pth')
    weights = {'transformer.level_embed': torch.zeros(4, 256)}
    torch.save(dict(model=weights, epoch=12), path)
    with pytest.raises(UserError, match='python -m project convert'):
        load_checkpoint(model, path)


def test_other_settings_raise(old: str) -> None:
    model = model_of(H_DETR, num_queries=7)
    with pytest.raises(UserError, match=r'another HDETR: \w+.*instead of'):
        load_checkpoint(model, old)


def test_a_part_of_a_model_is_loaded(tmp_path: Path, old: str) -> None:
    weights = torch.load(old)['state_dict']
    part = {k: v for k, v in weights.items() if k.startswith('encoder.')}
    model = model_of(H_DETR, 3)
    load_checkpoint(model, save(tmp_path / 'part.pth', part))
    name = next(iter(part))
    assert torch.equal(model.state_dict()[name], part[name])
    load_checkpoint(model_of(H_DETR), old)


def test_a_backbone_may_resize_what_it_loads(
    tmp_path: Path, model: nn.Module
) -> None:
    weights = model.state_dict()
    name = 'backbone.conv1.weight'
    wanted = torch.ones_like(weights[name])
    weights[name] = torch.zeros(1)
    model.backbone.register_load_state_dict_pre_hook(
        lambda module, weights, prefix, *args: weights.update(
            {f'{prefix}conv1.weight': wanted}
        )
    )
    load_checkpoint(model, save(tmp_path / 'resized.pth', weights))
    assert (model.state_dict()[name] == 1).all()
