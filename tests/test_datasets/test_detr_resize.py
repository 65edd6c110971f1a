"""Images and boxes come out as in DETR's code, or in detectron2's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose

from project.datasets.transforms import DETRResize, size_within
from tests.helpers.configs import read_config

pytestmark = pytest.mark.usefixtures('mmdet_scope')

CASES = Path(__file__).parents[1] / 'data/recipes/pipelines'
RULES = {'authors': 'DETRResize', 'detectron2': 'AnyDepthResize'}
BACKENDS = ('pillow', 'cv2', 'torch')
NO_LIMIT = 60000


def cases(name: str) -> list[dict]:
    return json.loads((CASES / f'{name}.json').read_text())['cases']


def resized(
    image: tuple[int, int], boxes: Any = (), *, type: str, **settings: Any
) -> dict:
    """Resize an image of this width and height and its boxes."""
    width, height = image
    transform = TRANSFORMS.build(dict(type=type, keep_ratio=True, **settings))
    return transform(
        dict(
            img=np.zeros((height, width, 3), np.uint8),
            gt_bboxes=HorizontalBoxes(
                torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
            ),
        )
    )


@pytest.mark.parametrize('rule', RULES)
def test_every_size_is_the_sources(rule: str) -> None:
    for case in cases('resize_sizes'):
        scale = (case['max_size'] or NO_LIMIT, case['short_side'])
        out = resized(case['image'], type=RULES[rule], scale=scale)
        assert list(out['img'].shape[1::-1]) == case[rule], case


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('backend', BACKENDS)
def test_scale_chosen_at_random_is_rounded_alike(
    rule: str, backend: str
) -> None:
    transform = TRANSFORMS.build(
        dict(
            type='RandomChoiceResize',
            resize_type=RULES[rule],
            scales=[(1333, 800)],
            keep_ratio=True,
            backend=backend,
        )
    )
    for case in cases('eval_mapping'):
        width, height = case['image']
        out = transform(dict(img=np.zeros((height, width, 3), np.uint8)))
        expected = case[f'{rule}_input_size']
        assert list(out['img'].shape[1::-1]) == expected


@pytest.mark.parametrize(
    ('image', 'scale', 'expected'),
    [
        ((640, 103), (1333, 800), (1335, 215)),  # beyond the limit
        ((640, 100), (1333, 800), (1331, 208)),  # short of it
        ((103, 640), (800, 1333), (215, 1335)),  # the scale in any order
        ((2000, 1), (1333, 800), (2000, 1)),  # 0.67 of a pixel is one
        ((1, 5000), (1333, 800), (1, 1333)),  # 0.27 of a pixel is none
        ((1, 1), (1333, 800), (800, 800)),
        # 2.5 is rounded to 2, and 3.5 to 4.
        ((400, 1), (1000, 800), (800, 2)),
        ((2000, 7), (1000, 800), (1142, 4)),
        ((600, 600), (500, 500), (500, 500)),
    ],
)
def test_extreme_shapes(
    image: tuple[int, int], scale: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert size_within(image, scale) == expected
    out = resized(image, type='DETRResize', scale=scale)
    assert out['img'].shape[1::-1] == expected


@pytest.mark.parametrize('backend', BACKENDS)
def test_boxes_follow_the_image_and_back(backend: str) -> None:
    for case in cases('resize_sizes'):
        width, height = case['image']
        whole = [0.0, 0.0, width, height]
        box = [width * 0.25, height * 0.5, width * 0.5, height]
        out = resized(
            case['image'],
            [whole, box],
            type='DETRResize',
            scale=(case['short_side'], case['max_size'] or NO_LIMIT),
            backend=backend,
        )
        new = torch.tensor(case['authors'] * 2, dtype=torch.float64)
        relative = torch.tensor(
            [[0, 0, 1, 1], [0.25, 0.5, 0.5, 1]], dtype=torch.float64
        )
        found = out['gt_bboxes'].tensor
        torch.testing.assert_close(found, relative * new, rtol=1e-6, atol=0)
        back = found / found.new_tensor(out['scale_factor']).repeat(2)
        torch.testing.assert_close(
            back, back.new_tensor([whole, box]), rtol=1e-12, atol=0
        )


def test_detections_are_mapped_back_as_in_the_sources() -> None:
    """As a head does: times the size of the input, by its scale factor."""
    for case in cases('eval_mapping'):
        out = resized(case['image'], type='DETRResize', scale=(1333, 800))
        centre, extent = torch.tensor(
            case['normalised_cxcywh'], dtype=torch.float64
        ).split(2, dim=1)
        normalised = torch.cat([centre - extent / 2, centre + extent / 2], 1)
        height, width = out['img_shape']
        boxes = normalised * normalised.new_tensor([width, height] * 2)
        boxes = boxes / boxes.new_tensor(out['scale_factor']).repeat(2)
        torch.testing.assert_close(
            boxes, boxes.new_tensor(case['authors_boxes']), rtol=0, atol=1e-3
        )


def test_masks_get_the_size_of_the_image() -> None:
    out = DETRResize(scale=(1333, 800))(
        dict(
            img=np.zeros((480, 640, 3), np.uint8),
            gt_masks=BitmapMasks(np.ones((2, 480, 640), np.uint8), 480, 640),
            gt_seg_map=np.zeros((480, 640), np.uint8),
        )
    )
    assert out['img'].shape[:2] == out['img_shape'] == (800, 1066)
    assert (out['gt_masks'].height, out['gt_masks'].width) == (800, 1066)
    assert out['gt_seg_map'].shape == (800, 1066)


def test_ratio_need_not_be_kept() -> None:
    transform = DETRResize(scale=(300, 200), keep_ratio=False)
    out = transform(dict(img=np.zeros((480, 640, 3), np.uint8)))
    assert out['img'].shape[:2] == (200, 300)
    assert 'keep_ratio=False' in repr(transform)
    assert 'keep_ratio=True' in repr(DETRResize(scale=(300, 200)))


@pytest.mark.parametrize(
    ('rule', 'config'),
    [
        ('authors', 'h_detr/h-detr_r50_8xb2-12e_coco.py'),
        ('detectron2', 'h_detr/h-detr_r50_8xb2-12e_coco-detrex.py'),
    ],
)
@pytest.mark.parametrize('number', range(len(cases('detr_pipeline'))))
def test_augmentation_of_the_shipped_configs(
    rule: str, config: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the random decisions of the case, in either branch."""
    case = cases('detr_pipeline')[number]
    pipeline = _pipeline(config)
    _decide(pipeline, case['decisions'], monkeypatch)
    width, height = case['image']
    boxes = torch.tensor(case['boxes'], dtype=torch.float32)
    out = Compose(pipeline)(
        dict(
            img=np.zeros((height, width, 3), np.uint8),
            img_shape=(height, width),
            gt_bboxes=HorizontalBoxes(boxes),
            gt_bboxes_labels=np.arange(len(boxes)),
            gt_ignore_flags=np.zeros(len(boxes), bool),
        )
    )
    expected = case[rule]
    assert list(out['img'].shape[1::-1]) == expected['size']
    assert out['gt_bboxes_labels'].tolist() == expected['kept']
    np.testing.assert_allclose(
        out['gt_bboxes'].tensor.numpy(), expected['boxes'], rtol=0, atol=2e-3
    )


def _pipeline(config: str) -> list:
    """The shipped augmentation, built: flip, then one of two branches."""
    dataset = read_config(config).train_dataloader.dataset
    steps = [
        step
        for step in dataset.pipeline
        if step.type in ('RandomFlip', 'RandomChoice')
    ]
    assert [step.type for step in steps] == ['RandomFlip', 'RandomChoice']
    return [TRANSFORMS.build(step) for step in steps]


def _decide(
    pipeline: list, decisions: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have the transforms decide as told.

    They draw their random numbers in private methods, and nowhere else.
    """
    flip, choice = pipeline
    direction = 'horizontal' if decisions['flip'] else None
    monkeypatch.setattr(flip, '_choose_direction', lambda: direction)
    branch = decisions['branch']
    monkeypatch.setattr(choice, 'random_pipeline_index', lambda: branch)
    (plain,), (small, crop, last) = choice.transforms
    for resize, side in (
        (plain, decisions['scale']),
        (small, decisions['small']),
        (last, decisions['scale']),
    ):
        (scale,) = [s for s in resize.scales if min(s) == side]
        monkeypatch.setattr(
            resize, '_random_select', lambda scale=scale: (scale, 0)
        )
    size = (decisions['crop_h'], decisions['crop_w'])
    monkeypatch.setattr(crop, '_get_crop_size', lambda image_size: size)
    offset = (decisions['off_y'], decisions['off_x'])
    monkeypatch.setattr(crop, '_rand_offset', lambda margin: offset)
