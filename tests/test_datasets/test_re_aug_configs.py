"""Data re-augmentation and the schedules of HPR are the published ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hub import get_config

import project  # noqa: F401  registers the dataset
from tests.helpers.configs import CONFIGS

pytestmark = pytest.mark.usefixtures('mmdet_scope')

BASE = CONFIGS / '_base_'
SHORT_SIDES = set(range(480, 801, 32))


@pytest.fixture(scope='module')
def mmdet_dino() -> Config:
    return get_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')


def test_the_model_they_build_on_is_mmdets(mmdet_dino: Config) -> None:
    own = Config.fromfile(BASE / 'models/dino_r50.py').model
    # The same weights by an address that needs no torchvision.
    start = own.backbone.init_cfg
    assert start.checkpoint.endswith('/resnet50-0676ba61.pth')
    start.checkpoint = 'torchvision://resnet50'
    assert own.to_dict() == mmdet_dino.model.to_dict()


def test_the_weak_augmentation_is_mmdets(mmdet_dino: Config) -> None:
    own = Config.fromfile(BASE / 'datasets/coco_detection_detr_cv2.py')
    assert own.train_pipeline == mmdet_dino.train_pipeline
    re_aug = Config.fromfile(BASE / 'datasets/coco_detection_re_aug.py')
    assert re_aug.train_pipeline[:4] == own.train_pipeline[:4]


def test_the_optimiser_is_mmdets(mmdet_dino: Config) -> None:
    own = Config.fromfile(BASE / 'schedules/dino_12e.py')
    assert own.optim_wrapper == mmdet_dino.optim_wrapper
    assert own.param_scheduler == mmdet_dino.param_scheduler


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """800 x 600 pixels of noise."""
    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 255, (600, 800, 3))
    cv2.imwrite(str(path), pixels.astype(np.uint8))
    return path


def results(path: Path, boxes: list[list[float]]) -> dict:
    instances = [
        dict(bbox=box, bbox_label=label, ignore_flag=0)
        for label, box in enumerate(boxes)
    ]
    return dict(img_path=str(path), img_id=7, instances=instances)


def test_both_branches_of_the_shipped_pipeline(image: Path) -> None:
    config = Config.fromfile(BASE / 'datasets/coco_detection_re_aug.py')
    pipeline = Compose(config.train_pipeline)
    boxes = [
        [x, y, x + 30, y + 30]
        for x in range(0, 800, 100)
        for y in range(0, 600, 100)
    ]
    np.random.seed(0)
    num_weak = num_strong = num_changed = 0
    for _ in range(40):
        out = pipeline(results(image, boxes))
        assert out.keys() == {'inputs', 'data_samples'}
        weak, strong = (out['inputs'][name] for name in ('weak', 'strong'))
        assert weak.shape == strong.shape
        assert weak.dtype == strong.dtype == torch.uint8
        height, width = weak.shape[1:]
        assert min(height, width) in SHORT_SIDES or max(height, width) == 1333
        num_changed += not torch.equal(weak, strong)
        for sample in out['data_samples'].values():
            assert sample.img_shape == (height, width)
            assert sample.img_id == 7
            found = sample.gt_instances.bboxes.tensor
            assert found.isfinite().all()
            assert (found[:, 2:] >= found[:, :2]).all()
            assert (found >= 0).all()
            assert (found <= torch.tensor([width, height] * 2)).all()
        num_weak += len(out['data_samples']['weak'].gt_instances)
        num_strong += len(out['data_samples']['strong'].gt_instances)
    assert num_changed >= 38
    # Erasing takes objects away, nothing adds any.
    assert 0 < num_strong < num_weak


def test_a_box_pushed_out_stays_without_an_area(image: Path) -> None:
    config = Config.fromfile(BASE / 'datasets/coco_detection_re_aug.py')
    strong = [
        step
        for step in config.train_pipeline[-1].strong
        if step.type != 'RandomErasing'
    ]
    strong[0].transforms = [
        dict(type='TranslateX', prob=1.0, min_mag=0.5, max_mag=0.5)
    ]
    load = config.train_pipeline[:2]
    pipeline = Compose([*load, *strong])
    np.random.seed(0)
    areas = []
    for _ in range(8):
        out = pipeline(results(image, [[0, 0, 20, 20], [780, 0, 800, 20]]))
        found = out['data_samples'].gt_instances.bboxes
        assert len(found) == 2
        areas.append(sorted(found.areas.tolist()))
    assert all(small == 0 < large for small, large in areas)


def test_all_objects_too_small_are_drawn_anew_and_none_are_not(
    image: Path,
) -> None:
    """mmdet's dataset takes another image where a pipeline gives None."""
    config = Config.fromfile(BASE / 'datasets/coco_detection_re_aug.py')
    pipeline = Compose(config.train_pipeline)
    assert pipeline(results(image, [[5, 5, 5.001, 5.001]])) is None
    out = pipeline(results(image, []))
    for sample in out['data_samples'].values():
        assert len(sample.gt_instances) == 0


def test_lsj_images_are_tested_in_a_grey_square(image: Path) -> None:
    config = Config.fromfile(BASE / 'datasets/coco_detection_re_aug_lsj.py')
    out = Compose(config.test_pipeline)(results(image, []))
    assert out['inputs'].shape == (3, 1024, 1024)
    assert (out['inputs'][:, 768:] == 114).all()
    sample = out['data_samples']
    assert sample.img_shape == (1024, 1024)
    assert sample.scale_factor == (1.28, 1.28)
    loader = config.train_dataloader
    assert loader.batch_sampler is None
    assert loader.dataset.dataset.filter_cfg.filter_empty_gt is False


# Total, steps down, images per GPU.
SCHEDULES = {
    '12e': (12, [11]),
    '24e': (24, [16, 22]),
    '88k': (88000, [80000]),
    '176k': (176000, [117300, 161300]),
    '264k': (264000, [205300, 249300]),
}
NAMES = sorted(path.stem for path in (CONFIGS / 'hpr').glob('hpr-*.py'))
PUBLISHED = [
    name
    for name in NAMES
    if name.split('_')[0]
    in ('hpr-deformable-detr', 'hpr-dino', 'hpr-align-detr', 'hpr-ddq')
    and '_rank-loss_' not in name
]


def test_there_are_as_many_configs_as_the_authors_have() -> None:
    assert len(PUBLISHED) == 30


@pytest.mark.parametrize('name', PUBLISHED)
def test_schedules_of_the_published_runs(name: str) -> None:
    config = Config.fromfile(CONFIGS / 'hpr' / f'{name}.py')
    is_ddq = name.startswith('hpr-ddq')
    gpus, schedule = name.split('_')[-2].split('-')
    total, milestones = SCHEDULES[schedule]
    *warm_up, steps = config.param_scheduler
    assert steps.milestones == milestones
    assert (steps.begin, steps.end, steps.gamma) == (0, total, 0.1)
    if is_ddq:
        (linear,) = warm_up
        assert linear.type == 'LinearLR'
        assert (linear.start_factor, linear.end) == (1e-4, 2000)
        assert not linear.by_epoch
    else:
        assert not warm_up
    optimizer = config.optim_wrapper.optimizer
    expected = (2e-4, 0.05) if is_ddq else (1e-4, 1e-4)
    assert (optimizer.lr, optimizer.weight_decay) == expected
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert config.optim_wrapper.paramwise_cfg == dict(
        custom_keys={'backbone': dict(lr_mult=0.1)}
    )

    num_gpus, batch = map(int, gpus.split('xb'))
    assert batch == config.train_dataloader.batch_size
    assert num_gpus * batch == config.auto_scale_lr.base_batch_size == 16
    assert config.randomness.seed == 681328528
    every = 1 if schedule.endswith('e') else 8000
    assert config.train_cfg.val_interval == every
    checkpoint = dict(
        type='CheckpointHook',
        _scope_='mmdet',
        interval=every,
        max_keep_ckpts=-1 if '_lsj_' in name else 4,
    )
    if not schedule.endswith('e'):
        checkpoint.update(by_epoch=False)
    assert config.default_hooks.checkpoint == checkpoint


@pytest.mark.parametrize('name', PUBLISHED)
def test_models_of_the_published_runs(name: str) -> None:
    """What differs between the families, as the specification lists it."""
    config = Config.fromfile(CONFIGS / 'hpr' / f'{name}.py')
    model = config.model
    method, backbone = name.split('_')[:2]
    is_lsj, is_swin = '_lsj_' in name, backbone == 'swin-l'
    is_align, is_ddq = method == 'hpr-align-detr', method == 'hpr-ddq'

    position = model.positional_encoding
    expected = (-0.5, 10000) if is_align else (0.0, 20)
    assert (position.offset, position.temperature) == expected
    assert model.num_queries == (300 if is_ddq else 900)
    std = model.data_preprocessor.data_preprocessor.std
    assert std[0] == (58.395 if is_align or is_ddq else 58.335)
    recomputes = is_align and (is_lsj or is_swin)
    recomputes |= is_ddq and not (is_lsj or is_swin)
    assert model.encoder.get('num_cp', 0) == (6 if recomputes else 0)
    assert model.neck.get('bias', False) == (is_align or is_swin)
    assert model.decoder.bbox_roi_extractor.featmap_strides == [8, 16, 32, 64]
    if is_swin:
        assert model.backbone.out_indices == (0, 1, 2, 3)
        assert len(model.neck.in_channels) == model.neck.num_outs
    else:
        norm = 'FrozenBN' if is_align else 'BN' if is_ddq else 'SyncBN'
        assert model.backbone.norm_cfg.type == norm
        assert model.backbone.frozen_stages == (0 if is_align else 1)
        start = model.backbone.init_cfg.checkpoint
        assert start == 'backbone_pth/backbone.pth'
    use_dn = model.get('use_dn', is_ddq)
    assert use_dn == (method != 'hpr-deformable-detr')
