"""Configs in the form that HPR's authors keep theirs, written from our own.

Their folder has relative bases for data and runtime, imports nothing (their
``train.py`` does), has no ``runner_type``, knows mmengine's loops alone, and
names what is default.
"""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .configs import CONFIGS

OURS = {
    'deformable_detr-900q_4scale_1x_r50': (
        'hpr-deformable-detr_r50_8xb2-12e_coco'
    ),
    'align_detr-lsj_900q_4scale_1x_swinL': (
        'hpr-align-detr_swin-l_lsj_16xb1-88k_coco'
    ),
    'ddq_300q_4scale_1x_r50': 'hpr-ddq_r50_8xb2-88k_coco',
}
"""Their names of files, and ours of the same recipes."""
REDUNDANT = {
    'decoder.layer_cfg.merge_dropout': 0.0,
    'decoder.layer_cfg.regional_ca_cfg.init_cfg': None,
    'decoder.layer_cfg.regional_ca_cfg.batch_first': True,
}
"""What theirs say and ours leave out: it has no effect on any number."""
REDUNDANT_SWIN = {
    **REDUNDANT,
    'use_lsj': True,
    'ckpt_backbone': False,
    'ckpt_neck': False,
    'backbone.mlp_ratio': 4,
    'backbone.qkv_bias': True,
    'backbone.qk_scale': None,
    'backbone.drop_rate': 0.0,
    'backbone.attn_drop_rate': 0.0,
    'backbone.patch_norm': True,
}
_DATA = (
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'val_evaluator',
    'test_evaluator',
)
_RUNTIME = ('default_scope', 'default_hooks', 'env_cfg', 'log_level')
_RECIPE = (
    'model',
    'optim_wrapper',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'param_scheduler',
    'randomness',
    'auto_scale_lr',
    'log_processor',
)


def redundant(name: str) -> dict[str, Any]:
    """What a config of theirs says besides, in its model."""
    return REDUNDANT_SWIN if 'swin' in name else REDUNDANT


def write_tree(folder: Path) -> Path:
    """Write the authors' folder of configs.

    Args:
        folder: Is created.

    Returns:
        Path: The folder.
    """
    for name, ours in OURS.items():
        cfg = Config.fromfile(CONFIGS / 'hpr' / f'{ours}.py')
        settings = copy.deepcopy(cfg.to_dict())
        _set_their_words(name, settings)
        # The runtime is one for all, but not how often a config saves.
        checkpoint = settings['default_hooks'].pop('checkpoint')
        prefix = 'lsj_' if 'lsj' in name else ''
        bases = {
            f'_base_/datasets/{prefix}data_re_aug_coco_detection.py': _DATA,
            '_base_/default_runtime.py': _RUNTIME,
        }
        for base, keys in bases.items():
            _write(folder / base, {key: settings[key] for key in keys})
        recipe = {key: settings[key] for key in _RECIPE if key in settings}
        recipe['default_hooks'] = dict(checkpoint=checkpoint)
        relative = {'_base_': [f'./{base}' for base in bases]}
        _write(folder / f'{name}.py', {**relative, **recipe})
    return folder


def _set_their_words(name: str, settings: dict) -> None:
    """Change in place what theirs say otherwise than ours."""
    model = Config(settings['model'])
    model.merge_from_dict(redundant(name))
    settings['model'] = model.to_dict()
    if settings['train_cfg']['type'] == 'ResumableTrainLoop':
        settings['train_cfg']['type'] = 'IterBasedTrainLoop'
    if name.startswith('ddq'):  # their typo
        settings['model']['backbone']['init_cfg']['checkpoint'] = (
            'backbone_pth/backbone.pt'
        )
    for key in _DATA:
        _move_data(settings[key])


def _move_data(node: Any) -> None:
    """Name the folder that their data lies in, in place."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(children):
        if isinstance(child, str):
            node[key] = child.replace('data/coco/', 'data/coco2017/')
        elif isinstance(child, (dict, list)):
            _move_data(child)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'{key} = {value!r}\n' for key, value in settings.items()]
    path.write_text(''.join(lines))
