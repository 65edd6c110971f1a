"""Masks of regions, and pasting with them, are mmdet's to the last pixel."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import torch
from mmdet.datasets.transforms import CopyPaste, LoadAnnotations, RandomErasing
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor

import project  # noqa: F401  registers the transforms
from project.datasets.transforms import (
    LoadRegionAnnotations,
    RegionCopyPaste,
)
from project.datasets.transforms.region_masks import RegionMasks
from tests.helpers.configs import CONFIGS

pytestmark = pytest.mark.usefixtures('mmdet_scope')

HEIGHT, WIDTH = 47, 61


def bitmaps(seed: int = 0, count: int = 6) -> np.ndarray:
    """Rectangles with holes, one at the edge, one empty, one everywhere."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for index, mask in enumerate(masks[2:]):
        y, x = rng.integers(0, HEIGHT - 9), rng.integers(0, WIDTH - 9)
        part = mask[y : y + 30, x : x + 25] if index else mask[-4:, -1:]
        part[:] = rng.random(part.shape) < 0.7
    masks[1] = 1
    return masks


def both(masks: np.ndarray) -> tuple[BitmapMasks, RegionMasks]:
    whole = BitmapMasks(masks, *masks.shape[1:])
    return whole, RegionMasks.of(whole)


def boxes(masks: BitmapMasks) -> Tensor:
    return masks.get_bboxes(HorizontalBoxes).tensor


OPERATIONS: list[Callable[[BitmapMasks], Any]] = [
    lambda masks: masks.rescale((200, 90)),
    lambda masks: masks.rescale(0.31),
    lambda masks: masks.rescale((1024, 1024), 'bilinear'),
    lambda masks: masks.resize((13, 111)),
    lambda masks: masks.resize((1, 1)),
    lambda masks: masks.flip(),
    lambda masks: masks.flip('vertical'),
    lambda masks: masks.flip('diagonal').flip(),
    lambda masks: masks.pad((70, 61)),
    lambda masks: masks.pad((70, 90), 1),
    lambda masks: masks.crop(np.array([5, 9, 40, 33])),
    lambda masks: masks.crop(np.array([-5, 30, 400, 400])),
    lambda masks: masks.crop(np.array([58, 45, 61, 47])).resize((40, 30)),
    lambda masks: masks[np.array([3, 1, 3])],
    lambda masks: masks[np.array([True, False, True, False, True, True])],
    lambda masks: masks[2],
    lambda masks: masks[np.array([], dtype=int)],
    lambda masks: masks.rotate((HEIGHT, WIDTH), 20),
    lambda masks: masks.translate((HEIGHT, WIDTH), 7),
    lambda masks: masks.flip().resize((30, 30)).crop(np.array([3, 3, 20, 25])),
]


@pytest.mark.parametrize('operation', OPERATIONS)
def test_operations_give_the_same_pixels(operation):
    for seed in range(3):
        whole, regions = map(operation, both(bitmaps(seed)))
        assert len(regions) == len(whole)
        assert (regions.height, regions.width) == (whole.height, whole.width)
        np.testing.assert_array_equal(regions.areas, whole.areas)
        assert torch.equal(boxes(regions), boxes(whole))
        np.testing.assert_array_equal(regions.masks, whole.masks)


@pytest.mark.parametrize('size', [(480, 640), (427, 640), (333, 500)])
def test_resizing_takes_the_pixels_that_opencv_takes(size):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (1, *size)).astype(np.uint8)
    for scale in rng.integers(90, 2100, 12):
        whole, regions = both(masks)
        out = int(scale), int(scale)
        np.testing.assert_array_equal(
            regions.rescale(out).masks, whole.rescale(out).masks
        )


def test_writing_into_the_bitmaps_is_kept():
    """As RandomErasing does."""
    whole, regions = both(bitmaps())
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for masks in (whole, regions):
        np.random.seed(0)
        RandomErasing(1, 0.5).transform(
            dict(img=image, img_shape=image.shape[:2], gt_masks=masks)
        )
    assert 0 < whole.areas[1] < HEIGHT * WIDTH
    np.testing.assert_array_equal(regions.flip().masks, whole.flip().masks)
    assert torch.equal(boxes(regions), boxes(whole))


def annotated_image(seed: int) -> dict:
    """An image whose objects are polygons, RLE of both kinds, and nothing."""
    rng = np.random.default_rng(seed)
    polygons = [
        [(rng.random(12) * HEIGHT).tolist() for _ in range(1 + i % 2)]
        for i in range(5)
    ]
    mask = np.asfortranarray(bitmaps(seed)[3])
    rle = pycocotools.mask.encode(mask)
    rle['counts'] = rle['counts'].decode()
    runs = dict(counts=[100, 200, HEIGHT * WIDTH - 300], size=[HEIGHT, WIDTH])
    masks = [*polygons, rle, runs, [[1.0, 2.0]]]
    instances = []
    for index, mask in enumerate(masks):
        low, size = rng.random(2) * 30, rng.random(2) * 20 + 1
        instances.append(
            dict(
                bbox=[*low, *(low + size)],
                bbox_label=index,
                mask=mask,
                ignore_flag=int(index == 1),
            )
        )
    pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return dict(
        img=pixels,
        img_shape=(HEIGHT, WIDTH),
        ori_shape=(HEIGHT, WIDTH),
        instances=instances,
    )


def loaded(kind: type, seed: int) -> dict:
    results = kind(with_mask=True)(annotated_image(seed))
    # Objects of a pipeline have the boxes of their masks.
    results['gt_bboxes'] = results['gt_masks'].get_bboxes(HorizontalBoxes)
    return results


def test_loading_gives_the_same_masks():
    ours, theirs = (
        loaded(kind, 0) for kind in (LoadRegionAnnotations, LoadAnnotations)
    )
    assert isinstance(ours['gt_masks'], RegionMasks)
    assert len(theirs['gt_masks']) == 8
    np.testing.assert_array_equal(
        ours['gt_masks'].masks, theirs['gt_masks'].masks
    )
    np.testing.assert_array_equal(
        ours['gt_ignore_flags'], theirs['gt_ignore_flags']
    )


@pytest.mark.parametrize('selected', [True, False])
@pytest.mark.parametrize('knows_regions', [True, False])
def test_pasting_gives_the_same_image(selected, knows_regions):
    settings = dict(
        selected=selected, bbox_occluded_thr=3, mask_occluded_thr=150
    )
    ours = RegionCopyPaste(**settings, keep_masks=True)
    theirs = CopyPaste(**settings)
    loader = LoadRegionAnnotations if knows_regions else LoadAnnotations
    num_kept = []
    for seed in range(12):
        outputs = []
        for paste, kind in ((ours, loader), (theirs, LoadAnnotations)):
            np.random.seed(seed)
            results = loaded(kind, seed)
            results['mix_results'] = [loaded(kind, seed + 100)]
            outputs.append(paste(results))
        found, expected = outputs
        num_kept.append(len(expected['gt_bboxes']))
        for key in ('img', 'gt_bboxes_labels', 'gt_ignore_flags'):
            np.testing.assert_array_equal(found[key], expected[key])
        assert torch.equal(
            found['gt_bboxes'].tensor, expected['gt_bboxes'].tensor
        )
        np.testing.assert_array_equal(
            found['gt_masks'].masks, expected['gt_masks'].masks
        )
    assert min(num_kept) < 16, 'nothing was ever hidden'


def test_masks_end_with_pasting():
    results = loaded(LoadRegionAnnotations, 0)
    results['mix_results'] = [loaded(LoadRegionAnnotations, 1)]
    assert 'gt_masks' not in RegionCopyPaste()(results)
    assert 'keep_masks=False' in repr(RegionCopyPaste())


def test_the_shipped_pipeline_gives_what_mmdets_transforms_give():
    path = CONFIGS / '_base_/datasets/coco_detection_re_aug_lsj.py'
    config = Config.fromfile(path)
    load = config.train_dataloader.dataset.dataset.pipeline
    strong, paste = config.train_pipeline[:2]
    assert (load[1].type, paste.type) == (
        'LoadRegionAnnotations',
        'RegionCopyPaste',
    )
    outputs = []
    for is_ours in (True, False):
        if not is_ours:
            load[1].type, paste.type = 'LoadAnnotations', 'CopyPaste'
        random.seed(1)
        np.random.seed(1)
        first = Compose(load[1:])
        images = [first(annotated_image(seed)) for seed in range(3)]
        results = Compose(strong.strong)(images[0])
        mixed = []
        for image in (results, images[1]):
            image['mix_results'] = [copy.deepcopy(images[2])]
            mixed.append(Compose([paste])(image))
        outputs.append(mixed)
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_array_equal(ours['img'], theirs['img'])
        assert torch.equal(
            ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor
        )
