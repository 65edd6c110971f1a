"""No config that works is refused by what looks for misspelt ones."""

import copy
import random
from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch.optim import AdamW

import project  # noqa: F401
from project.preflight.config import check_config
from project.preflight.misspellings import check_parts
from project.preflight.model_dimensions import check_seams
from project.preflight.settings import check_settings
from project.preflight.signatures import accepted_keys
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
OURS = sorted(
    path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts
)
# One of each kind of model, data and schedule.
SOME = (
    'custom/rank-detr_r50_8xb2-12e_custom.py',
    'anchor_detr/anchor-detr_r50-dc5_8xb2-50e_coco.py',
    'deta/deta_swin-l_5scale_16xb1-24e_objects365.py',
    'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-12e_coco.py',
    'hpr/hpr-align-detr_r50_lsj_16xb1-88k_coco.py',
    'hpr/hpr-ddq_r50_8xb2-88k_coco.py',
)


# Folders with configs that mmengine or mmdet itself refuses: `by_epoch` beside
# `type`, a metric's setting of another one, a misspelt metric.
BROKEN = ('solov2', 'pascal_voc', 'bytetrack')


class Base:
    def __init__(self, a: int, b: int = 0) -> None:
        pass


class HandsOn(Base):
    def __init__(self, c: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class HandsOnMore(HandsOn):
    def __init__(self, *, d: int = 0, **others: Any) -> None:
        # Others are the parent's.
        super().__init__(c=max(d, 1), **others)


class Takes(Base):
    def __init__(self, **kwargs: Any) -> None:
        self.e = kwargs.pop('e', 0)
        super().__init__(**kwargs)


class Keeps(Base):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(a=1)
        self.kwargs = kwargs


def function(a: int, *, b: int) -> None:
    pass


@pytest.mark.parametrize(
    ('target', 'expected'),
    [
        (Base, {'a', 'b'}),
        (HandsOn, {'a', 'b', 'c'}),
        (HandsOnMore, {'a', 'b', 'c', 'd'}),
        (Takes, None),
        (Keeps, None),
        (function, {'a', 'b'}),
        (lambda **kwargs: kwargs, None),
        (dict, None),
    ],
)
def test_keys_that_are_accepted(target: Any, expected: set | None) -> None:
    assert accepted_keys(target) == expected


def test_keys_of_classes_that_come_with_their_own_rules() -> None:
    assert {'interval', 'save_optimizer'} <= accepted_keys(CheckpointHook)
    assert accepted_keys(EMAHook) is None  # for the average's own class
    assert 'weight_decay' in accepted_keys(AdamW)


@pytest.mark.parametrize('name', SOME)
def test_configs_of_each_kind_pass(name: str, mmdet_scope: None) -> None:
    assert check_config(Config.fromfile(CONFIGS / name)) == []


@pytest.mark.slow
@pytest.mark.parametrize('path', OURS, ids=lambda p: p.stem)
def test_all_our_configs_pass(path: Path, mmdet_scope: None) -> None:
    assert check_config(Config.fromfile(path)) == []


@pytest.mark.slow
def test_configs_of_mmdet_pass() -> None:
    """150 of all its configs, and all its DETRs."""
    paths = sorted(MMDET_CONFIGS.glob('*/*.py'))
    paths = [path for path in paths if path.parent.name != '_base_']
    chosen = random.Random(0).sample(paths, 150)
    chosen += [path for path in paths if 'det' in path.parent.name.lower()]
    checked = 0
    for path in sorted(set(chosen)):
        try:
            cfg = Config.fromfile(path)
        except Exception:  # of a package that is not installed
            continue
        if path.parent.name in BROKEN:
            continue
        with DefaultScope.overwrite_default_scope('mmdet'):
            check_parts(cfg)
            check_settings(cfg)
            check_seams(cfg)
        checked += 1
    assert checked > 100


@pytest.mark.slow
def test_a_config_of_each_folder_of_mmdet_passes(mmdet_scope: None) -> None:
    paths = sorted(MMDET_CONFIGS.rglob('*.py'))
    of_folder = {p.parent: p for p in paths if '_base_' not in p.parts}
    checked = 0
    for path in of_folder.values():
        try:
            cfg = Config.fromfile(path)
        except Exception:  # of a package that is not installed
            continue
        check_parts(cfg)
        assert check_settings(cfg) == [], path
        checked += 1
    assert checked > 100


STRIDES = 'model.decoder.bbox_roi_extractor.featmap_strides'


def read(name: str, **options: Any) -> Config:
    cfg = Config.fromfile(CONFIGS / name)
    cfg.merge_from_dict(options)
    return cfg


def test_seams_leave_the_config_as_it_is() -> None:
    cfg = read('hpr/hpr-dino_r50_8xb2-12e_coco.py')
    before = copy.deepcopy(cfg.to_dict())
    check_seams(cfg)
    assert cfg.to_dict() == before


def test_strides_of_the_published_swin_l_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are twice the true ones, and its weights were trained so."""
    # One of its own: another test's may let errors through alone.
    logger = MMLogger.get_instance('strides', logger_name='strides')
    logger.addHandler(caplog.handler)
    check_seams(read('hpr/hpr-dino_swin-l_16xb1-88k_coco.py'))
    assert 'is [8, 16, 32, 64], but the feature maps' in caplog.text
    assert '[4, 8, 16, 32]' in caplog.text
    caplog.clear()
    right = {STRIDES: [4, 8, 16, 32]}
    check_seams(read('hpr/hpr-dino_swin-l_16xb1-88k_coco.py', **right))
    assert 'featmap_strides' not in caplog.text


def test_strides_that_no_levels_have_are_refused() -> None:
    mixed = {STRIDES: [4, 16, 32, 64]}
    with pytest.raises(UserError, match=r'featmap_strides is \[4, 16, 32'):
        check_seams(read('hpr/hpr-dino_r50_8xb2-12e_coco.py', **mixed))
