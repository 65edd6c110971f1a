"""Pillow resizes images of floats and of 16 bits, too."""

from typing import Any

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import project  # noqa: F401  registers the transforms
from project.datasets.transforms import AnyDepthResize
from project.preflight.config_tree import all_dicts
from project.preflight.image_depth import check_image_depth
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

SCALE = (90, 61)
SHAPE = (50, 70)


@pytest.fixture
def image() -> np.ndarray:
    """Noise on a slope: (h, w, 3) of 8 bits."""
    slope = np.linspace(0, 200, SHAPE[1])[None, :, None]
    noise = np.random.default_rng(0).integers(0, 55, (*SHAPE, 3))
    return (slope + noise).astype(np.uint8)


def resized(kind: type, image: np.ndarray, **kwargs) -> np.ndarray:
    transform = kind(SCALE, keep_ratio=True, backend='pillow', **kwargs)
    return transform(dict(img=image))['img']


@pytest.mark.parametrize('interpolation', ['bilinear', 'lanczos'])
def test_8_bits_are_as_before(image: np.ndarray, interpolation: str) -> None:
    ours = resized(AnyDepthResize, image, interpolation=interpolation)
    theirs = resized(Resize, image, interpolation=interpolation)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('scale', [(35, 25), (90, 61), (700, 500)])
@pytest.mark.parametrize('is_grey', [False, True])
def test_torch_gives_the_pixels_of_pillow(
    image: np.ndarray, scale: tuple[int, int], is_grey: bool
) -> None:
    if is_grey:
        image = image[..., 0]  # neither contiguous nor of three axes
    ours, theirs = (
        AnyDepthResize(scale, keep_ratio=True, backend=backend)(
            dict(img=image)
        )
        for backend in ('torch', 'pillow')
    )
    pixels = ours.pop('img')
    difference = np.abs(pixels.astype(int) - theirs.pop('img'))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference.max() <= 1
    assert difference.mean() < 0.01
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize('dtype', [np.float32, np.uint16])
def test_torch_resizes_other_types(image: np.ndarray, dtype: type) -> None:
    image = image.astype(dtype) * 257
    image.flags.writeable = False
    ours, theirs = (
        AnyDepthResize(SCALE, backend=backend)(dict(img=image))['img']
        for backend in ('torch', 'pillow')
    )
    assert ours.dtype == dtype
    assert np.abs(ours.astype(float) - theirs).max() <= 1


def test_torch_has_fewer_filters() -> None:
    with pytest.raises(UserError, match=r"'lanczos'.*'bilinear', 'bicubic'"):
        AnyDepthResize(SCALE, backend='torch', interpolation='lanczos')


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int32])
def test_numbers_of_other_types(image: np.ndarray, dtype: type) -> None:
    ours = resized(AnyDepthResize, image.astype(dtype))
    assert ours.dtype == dtype
    # Pillow rounds images of 8 bits after each of the two directions.
    assert np.abs(ours - resized(Resize, image).astype(float)).max() <= 1


def test_16_bits_stay(image: np.ndarray) -> None:
    deep = image.astype(np.uint16) * 257
    ours = resized(AnyDepthResize, deep)
    assert ours.dtype == np.uint16
    assert np.abs(ours / 257 - resized(Resize, image)).max() <= 1


def test_filters_that_overshoot_do_not_wrap_around() -> None:
    stripes = np.zeros((*SHAPE, 3), np.uint16)
    stripes[:, ::7] = 65535
    ours = resized(AnyDepthResize, stripes, interpolation='lanczos')
    theirs = resized(
        Resize, (stripes / 257).astype(np.uint8), interpolation='lanczos'
    )
    assert np.abs(ours / 257 - theirs).max() <= 3


def test_grey_images_keep_their_shape(image: np.ndarray) -> None:
    grey = image[..., 0].astype(np.float32)
    ours = resized(AnyDepthResize, grey)
    assert ours.shape == resized(Resize, image).shape[:2]
    one_channel = resized(AnyDepthResize, grey[..., None])
    np.testing.assert_array_equal(one_channel[..., 0], ours)


def test_sizes_and_scales_are_those_of_the_parent(image: np.ndarray) -> None:
    results = [
        kind(SCALE, keep_ratio=True, backend='pillow')(dict(img=pixels))
        for kind, pixels in ((Resize, image), (AnyDepthResize, image / 1))
    ]
    for key in ('img_shape', 'scale_factor', 'scale', 'keep_ratio'):
        assert results[0][key] == results[1][key]


@pytest.mark.parametrize(
    'name',
    [
        'h_detr/h-detr_r50_8xb2-12e_coco.py',
        'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
        'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
        'custom/h-detr_r50_8xb2-12e_custom.py',
    ],
)
def test_pipelines_of_configs_take_floats(
    name: str, image: np.ndarray
) -> None:
    """In inference as arrays, in training after a change of colours."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIGS / name)
    load = dict(type='LoadImageFromNDArray')
    steps = [
        step
        for step in cfg.val_dataloader.dataset.pipeline[1:]
        if step.type != 'LoadAnnotations'
    ]
    pipeline = Compose([TRANSFORMS.build(step) for step in (load, *steps)])
    found = [
        pipeline(dict(img=pixels, img_id=0))['inputs'].float()
        for pixels in (image, image.astype(np.float32))
    ]
    assert found[0].shape == found[1].shape
    assert (found[0] - found[1]).abs().max() <= 1

    colours = dict(type='PhotoMetricDistortion')
    steps = [
        step
        for step in cfg.train_dataloader.dataset.pipeline[1:]
        if step.type not in ('LoadAnnotations', 'PackDetInputs')
    ]
    training = Compose(
        [TRANSFORMS.build(step) for step in (load, colours, *steps)]
    )
    for _ in range(4):
        results = training(dict(img=image))
        assert results['img'].shape[:2] == results['img_shape']


def depth_config(**options: Any) -> Config:
    """A Rank-DETR config with mmdet's ``Resize``."""
    cfg = Config.fromfile(CONFIGS / 'rank_detr/rank-detr_r50_8xb2-12e_coco.py')
    for _, part in all_dicts(cfg):
        for key in ('type', 'resize_type'):
            if part.get(key) == 'AnyDepthResize':
                part[key] = 'Resize'
    cfg.merge_from_dict(options)
    return cfg


def test_floats_before_mmdets_resize_are_refused() -> None:
    check_image_depth(depth_config(), 'train')
    floats = {'val_dataloader.dataset.pipeline.0.to_float32': True}
    with pytest.raises(UserError, match=r"val_dataloader.* type='AnyDepthR"):
        check_image_depth(depth_config(**floats), 'val')

    cfg = depth_config()
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(1, dict(type='PhotoMetricDistortion'))
    with pytest.raises(UserError, match=r"resize_type='AnyDepthResize'"):
        check_image_depth(cfg, 'train')


def test_floats_that_work_pass() -> None:
    named = {
        'val_dataloader.dataset.pipeline.0.to_float32': True,
        'val_dataloader.dataset.pipeline.1.type': 'AnyDepthResize',
    }
    check_image_depth(depth_config(**named), 'val')
    opencv = {
        'val_dataloader.dataset.pipeline.0.to_float32': True,
        'val_dataloader.dataset.pipeline.1.backend': 'cv2',
    }
    check_image_depth(depth_config(**opencv), 'val')
    cfg = depth_config()
    cfg.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='PhotoMetricDistortion')
    )
    check_image_depth(cfg, 'train')
