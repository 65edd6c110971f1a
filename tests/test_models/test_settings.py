"""Settings that cannot work are refused in a sentence where they are built."""

from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import tiny_model_config

MODEL_FILES = dict(
    align='align_detr/align-detr_r50_8xb2-12e_coco.py',
    anchor='anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    dn='dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    h='h_detr/h-detr_r50_8xb2-12e_coco.py',
    ddq='_base_/models/hpr_ddq_r50.py',
    dino='_base_/models/hpr_dino_r50.py',
)
SETTINGS = [
    ('h', {'inverse_sigmoid_eps': 0}, 'inverse_sigmoid_eps=0 .* above 0'),
    ('dn', {'inverse_sigmoid_eps': -1}, 'inverse_sigmoid_eps=-1 .* above 0'),
    ('dn', {'inverse_sigmoid_eps': 0.5}, 'inverse_sigmoid_eps=0.5 .* below'),
    ('anchor', {'inverse_sigmoid_eps': 0}, 'inverse_sigmoid_eps=0 .* above 0'),
    (
        'h',
        {'decoder.inverse_sigmoid_eps': 0},
        'decoder.inverse_sigmoid_eps=0 .* above 0',
    ),
    ('ddq', {'dqs_cfg.iou_threshold': 5}, 'iou_threshold=5 .* 0 to 1'),
    ('ddq', {'dense_topk_ratio': -1}, 'dense_topk_ratio=-1 .* 0 or more'),
    ('dino', {'aux_weights': [0.5, -1]}, r'aux_weights\[1\]=-1 .* 0 or more'),
    (
        'h',
        {'bbox_head.loss_cls.loss_weight': -1.0},
        r'bbox_head.loss_cls.loss_weight=-1.0 .* 0 or more',
    ),
    (
        'h',
        {'bbox_head.loss_iou.loss_weight': -1.0},
        r'bbox_head.loss_iou.loss_weight=-1.0 .* 0 or more',
    ),
    (
        'h',
        {'one2many.loss_weight': -1.0},
        'one2many.loss_weight=-1.0 .* 0 or more',
    ),
    (
        'h',
        {'train_cfg.assigner.match_costs.1.weight': -5.0},
        r'match_costs\[1\].weight=-5.0 .* 0 or more',
    ),
    ('align', {'bbox_head.tau': 0}, 'tau=0 .* above 0'),
    ('align', {'bbox_head.alpha': 2}, 'alpha=2 .* 0 to 1'),
    ('h', {'num_queries': -5}, 'num_queries=-5 .* 1 or more'),
    ('anchor', {'num_queries': -3}, 'num_queries=-3 .* 1 or more'),
    ('dn', {'num_queries': 0}, 'num_queries=0 .* 1 or more'),
    ('h', {'encoder.num_cp': 9}, 'encoder.num_cp=9 .* num_layers=2'),
    ('anchor', {'encoder.num_cp': 9}, 'encoder.num_cp=9 .* num_layers=2'),
    ('dn', {'encoder.num_cp': 9}, 'encoder.num_cp=9 .* num_layers=2'),
    ('h', {'decoder.num_cp': 9}, 'num_cp=9 .* 0 to 2'),
]


def build(name: str, settings: dict[str, Any]) -> None:
    config = Config(dict(model=tiny_model_config(Path(MODEL_FILES[name]))))
    config.merge_from_dict(
        {f'model.{key}': value for key, value in settings.items()}
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(ConfigDict(config.model))


@pytest.mark.parametrize(('name', 'settings', 'sentence'), SETTINGS)
def test_refused(name: str, settings: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(name, settings)


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        (
            'h',
            {
                'inverse_sigmoid_eps': 1e-3,
                'bbox_head.loss_iou.loss_weight': 0,
                'encoder.num_cp': 2,
            },
        ),
        ('ddq', {'dqs_cfg.iou_threshold': 1, 'dense_topk_ratio': 0}),
        ('align', {'bbox_head.tau': 1e-3, 'bbox_head.alpha': 1}),
        ('align', {'bbox_head.tau': float('inf')}),
    ],
)
def test_at_the_bounds(name: str, settings: dict) -> None:
    build(name, settings)
