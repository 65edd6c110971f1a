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
from project.checkpoints.pretrained import correct_file_names
from project.preflight import check_model
from project.preflight.config_tree import leaf_datasets
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.authors_tree import OURS, redundant, write_tree
from tests.helpers.configs import CONFIGS
from tests.helpers.toy import build_model, toy_model_config
from tests.helpers.training import load_tool


@pytest.fixture(scope='module')
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user has the authors' configs, outside of this repository."""
    return write_tree(tmp_path_factory.mktemp('theirs') / 'configs')


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
def test_they_pass_the_checks(name: str, authors: Path) -> None:
    cfg = load(authors / f'{name}.py')
    assert cfg.runner_type == 'DETRRunner'
    assert 'custom_imports' not in cfg
    assert 'classes' not in cfg


@pytest.mark.parametrize('name', OURS)
def test_data_root_and_classes_reach_everything(
    name: str, authors: Path
) -> None:
    cfg = load(
        authors / f'{name}.py', data_root='other/', classes=('cat', 'dog')
    )
    for split in ('train', 'val', 'test'):
        ((_, dataset),) = leaf_datasets(cfg, split)
        assert dataset.data_root == 'other/'
        assert dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.val_evaluator.ann_file.startswith('other/')
    assert cfg.model.bbox_head.num_classes == 2


def test_where_they_lie_does_not_matter(
    authors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(authors, tmp_path / 'their configs')
    monkeypatch.chdir(tmp_path)
    for name in OURS:
        cfg = load(Path('their configs', f'{name}.py'))
        assert cfg.work_dir == f'work_dirs/{name}'


@pytest.mark.parametrize('name', OURS)
def test_their_form_says_the_same(name: str, authors: Path) -> None:
    """Model, optimiser, schedule and data, but for what changes nothing."""
    theirs = load(authors / f'{name}.py', data_root='data/coco/')
    ours = load(CONFIGS / 'hpr' / f'{OURS[name]}.py')
    # A typo that leaves ours without the file.
    if theirs.model.backbone.init_cfg.checkpoint.endswith('.pt'):
        theirs.model.backbone.init_cfg.checkpoint += 'h'
    left = dict(leaves(theirs.model))
    expected = dict(leaves(ours.model))
    for key, value in redundant(name).items():
        assert left[key] == value
        if key not in expected:
            del left[key]
    assert left == expected
    if theirs.train_cfg.type == 'IterBasedTrainLoop':  # ours resumes faster
        theirs.train_cfg.type = 'ResumableTrainLoop'
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
        assert dict(leaves(theirs[key])) == dict(leaves(ours[key]))
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        assert dict(leaves(theirs[key])) == dict(leaves(ours[key]))
    assert dict(leaves(theirs.default_hooks)) == dict(
        leaves(ours.default_hooks)
    )


@pytest.mark.parametrize('name', OURS)
def test_redundant_keys_change_no_weight(name: str, authors: Path) -> None:
    theirs, ours = (
        build_model(toy_model_config(path))
        for path in (
            authors / f'{name}.py',
            CONFIGS / 'hpr' / f'{OURS[name]}.py',
        )
    )
    expected = ours.state_dict()
    found = theirs.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_the_misspelt_backbone_is_found(
    authors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = load(authors / 'ddq_300q_4scale_1x_r50.py')
    monkeypatch.chdir(tmp_path)
    assert not correct_file_names(cfg)
    Path('backbone_pth').mkdir()
    Path('backbone_pth/backbone.pth').touch()
    assert len(correct_file_names(cfg)) == 1
    checkpoint = cfg.model.backbone.init_cfg.checkpoint
    assert checkpoint == 'backbone_pth/backbone.pth'


def test_other_classes_than_the_data_has_are_still_told(
    authors: Path,
) -> None:
    with pytest.raises(UserError, match='has num_classes=7'):
        load(
            authors / 'ddq_300q_4scale_1x_r50.py',
            **{'model.bbox_head.num_classes': 7},
        )
