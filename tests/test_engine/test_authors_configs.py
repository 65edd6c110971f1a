"""The configs of HPR's authors work as they are, from wherever they lie."""

import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import project  # noqa: F401  registers everything
from project.engine.runner.pretrained import correct_file_names
from project.preflight import check_model
from project.preflight.config_tree import leaf_datasets
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS, ROOT
from tests.helpers.toy import build_model, toy_model_config
from tests.helpers.training import load_tool

AUTHORS = ROOT / 'tests' / 'data' / 'authors_hpr'
OURS = {
    'deformable_detr-900q_4scale_1x_r50': (
        'hpr-deformable-detr_r50_8xb2-12e_coco'
    ),
    'align_detr-lsj_900q_4scale_1x_swinL': (
        'hpr-align-detr_swin-l_lsj_16xb1-88k_coco'
    ),
    'ddq_300q_4scale_1x_r50': 'hpr-ddq_r50_8xb2-88k_coco',
}
# What the authors' configs say and ours leave out: defaults, and what has no
# effect on any number.
REDUNDANT = {
    'use_lsj': True,
    'ckpt_backbone': False,
    'ckpt_neck': False,
    'data_preprocessor.data_preprocessor.pad_mask': True,
    'data_preprocessor.data_preprocessor.batch_augments.0.type': (
        'BatchFixedSizePad'
    ),
    'data_preprocessor.data_preprocessor.batch_augments.0.size.0': 1024,
    'data_preprocessor.data_preprocessor.batch_augments.0.size.1': 1024,
    'data_preprocessor.data_preprocessor.batch_augments.0.pad_mask': True,
    'decoder.layer_cfg.merge_dropout': 0.0,
    'decoder.layer_cfg.regional_ca_cfg.init_cfg': None,
    'decoder.layer_cfg.regional_ca_cfg.batch_first': True,
    'backbone.mlp_ratio': 4,
    'backbone.qkv_bias': True,
    'backbone.qk_scale': None,
    'backbone.drop_rate': 0.0,
    'backbone.attn_drop_rate': 0.0,
    'backbone.patch_norm': True,
}


def load(path: Path, **options: Any) -> Config:
    """Load a config as tools/train.py and tools/test.py do."""
    args = Namespace(
        config=str(path), cfg_options=options, work_dir=None, launcher='none'
    )
    cfg = resolve_config(load_tool('_cli').load_config(args))
    check_model(cfg)
    return cfg


def leaves(node: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Name each value of nested dicts and lists."""
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (list, tuple)) and node:
        children = enumerate(node)
    else:
        yield name[1:], node
        return
    for key, child in children:
        if key != '_scope_':
            yield from leaves(child, f'{name}.{key}')


@pytest.mark.parametrize('name', OURS)
def test_they_pass_the_checks(name: str) -> None:
    cfg = load(AUTHORS / f'{name}.py')
    assert cfg.runner_type == 'DETRRunner'
    assert 'custom_imports' not in cfg
    assert 'classes' not in cfg


@pytest.mark.parametrize('name', OURS)
def test_data_root_and_classes_reach_everything(name: str) -> None:
    cfg = load(
        AUTHORS / f'{name}.py', data_root='other/', classes=('cat', 'dog')
    )
    for split in ('train', 'val', 'test'):
        ((_, dataset),) = leaf_datasets(cfg, split)
        assert dataset.data_root == 'other/'
        assert dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.val_evaluator.ann_file.startswith('other/')
    assert cfg.model.bbox_head.num_classes == 2


def test_where_they_lie_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(AUTHORS, tmp_path / 'their configs')
    monkeypatch.chdir(tmp_path)
    for name in OURS:
        cfg = load(Path('their configs', f'{name}.py'))
        assert cfg.work_dir == f'work_dirs/{name}'


@pytest.mark.parametrize('name', OURS)
def test_ours_say_the_same(name: str) -> None:
    """Model, optimiser, schedule and data, but for what changes nothing."""
    theirs = load(AUTHORS / f'{name}.py', data_root='data/coco/')
    ours = load(CONFIGS / 'hpr' / f'{OURS[name]}.py')
    # A typo that leaves ours without the file.
    if theirs.model.backbone.init_cfg.checkpoint.endswith('.pt'):
        theirs.model.backbone.init_cfg.checkpoint += 'h'
    left = dict(leaves(theirs.model))
    expected = dict(leaves(ours.model))
    for key, value in REDUNDANT.items():
        if key in left and key not in expected:
            assert left.pop(key) == value
    if name.startswith('deformable'):
        assert expected.pop('use_dn') is left.pop('use_dn') is False
    if 'lsj' in name:
        # Pad has the images at one shape before.
        padded = 'data_preprocessor.data_preprocessor.pad_size_divisor'
        assert expected.pop(padded) == 1
    assert left == expected

    if theirs.train_cfg.type == 'IterBasedTrainLoop':  # ours resumes faster
        theirs.train_cfg.type = 'ResumableTrainLoop'
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
        assert dict(leaves(theirs[key])) == dict(leaves(ours[key]))
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        assert data_settings(theirs[key]) == data_settings(ours[key])
    # Ours takes back that only some are kept, which theirs never says.
    theirs.default_hooks.checkpoint.setdefault('max_keep_ckpts', -1)
    assert dict(leaves(theirs.default_hooks)) == dict(
        leaves(ours.default_hooks)
    )
    base = theirs.auto_scale_lr.base_batch_size
    assert base == ours.auto_scale_lr.base_batch_size == 16


def data_settings(loader: dict) -> dict[str, Any]:
    """What decides about the images of a dataloader, or about a metric."""
    loader = loader.copy()
    if 'dataset' in loader and 'dataset' not in loader['dataset']:
        # Ground truth is loaded by some in testing, where none is used.
        pipeline = loader['dataset']['pipeline']
        if loader['dataset'].get('test_mode'):
            loader['dataset']['pipeline'] = [
                step for step in pipeline if step['type'] != 'LoadAnnotations'
            ]
    return {
        key: value
        for key, value in leaves(loader)
        if not (key.endswith('backend_args') or value is None)
    }


@pytest.mark.parametrize('name', OURS)
def test_redundant_keys_change_no_weight(name: str) -> None:
    theirs, ours = (
        build_model(toy_model_config(path))
        for path in (
            AUTHORS / f'{name}.py',
            CONFIGS / 'hpr' / f'{OURS[name]}.py',
        )
    )
    expected = ours.state_dict()
    found = theirs.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_the_misspelt_backbone_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = load(AUTHORS / 'ddq_300q_4scale_1x_r50.py')
    monkeypatch.chdir(tmp_path)
    assert not correct_file_names(cfg)
    Path('backbone_pth').mkdir()
    Path('backbone_pth/backbone.pth').touch()
    assert len(correct_file_names(cfg)) == 1
    checkpoint = cfg.model.backbone.init_cfg.checkpoint
    assert checkpoint == 'backbone_pth/backbone.pth'


def test_other_classes_than_the_data_has_are_still_told() -> None:
    with pytest.raises(UserError, match='has num_classes=7'):
        load(
            AUTHORS / 'ddq_300q_4scale_1x_r50.py',
            **{'model.bbox_head.num_classes': 7},
        )
