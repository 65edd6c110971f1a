"""The shared dataset and schedule configs are the published ones and run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper

from project.datasets.shapes import ShapesSpec, make_shapes
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.preflight.variables import resolve_config
from tests.helpers.configs import CONFIGS, SHARED
from tests.helpers.toy import build_model

pytestmark = pytest.mark.usefixtures('mmdet_scope')

BASE = CONFIGS / '_base_'
PUBLISHED = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
SHORT_SIDES = set(range(480, 801, 32))


@pytest.fixture(scope='module')
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, ShapesSpec(train=50, val=4, seed=3))
    return root


@pytest.fixture(scope='module')
def mmdet_config() -> Config:
    """Deformable-DETR's own config, of which H-DETR keeps the data part."""
    return get_config(
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
    )


def load_base(name: str) -> Config:
    return Config.fromfile(BASE / name)


def shapes_config(root: Path) -> Config:
    config = load_base('datasets/shapes.py')
    config.data_root = str(root)
    return resolve_config(config)


def without(node: Any, *keys: str) -> Any:
    """Copy nested dicts and lists without the entries of some names."""
    if isinstance(node, dict):
        return {k: without(v, *keys) for k, v in node.items() if k not in keys}
    if isinstance(node, (list, tuple)):
        return [without(child, *keys) for child in node]
    return node


@pytest.mark.parametrize(
    ('name', 'resize_type'),
    [('detr', 'DETRResize'), ('detrex', 'AnyDepthResize')],
)
def test_pipelines_are_mmdets_but_for_the_resizing(
    name: str, resize_type: str, mmdet_config: Config
) -> None:
    own = load_base(f'datasets/coco_detection_{name}.py')
    for split in ('train', 'val'):
        theirs = mmdet_config[f'{split}_dataloader'].dataset.pipeline
        pipeline = own[f'{split}_dataloader'].dataset.pipeline
        resizes = [s for s in _steps(pipeline) if 'Resize' in s['type']]
        assert resizes
        for step in resizes:
            assert step.pop('backend') == 'pillow'
            rule = step.pop('resize_type', step.type)
            if step.type == 'RandomChoiceResize':
                assert rule.removeprefix('RandomChoice') == resize_type
            else:
                assert rule == resize_type
                step.type = 'Resize'
        assert _unlimited(pipeline) == _unlimited(theirs)


def _unlimited(pipeline: list) -> Any:
    """A copy in which long sides that no photograph has are one number."""
    pipeline = without(pipeline)
    for step in _steps(pipeline):
        if 'scales' in step:
            step['scales'] = [(s, min(m, 4200)) for s, m in step['scales']]
    return pipeline


def _steps(pipeline: list) -> Iterator[dict]:
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get('transforms', []))
        else:
            yield from _steps(step)


def test_dataloaders_are_mmdets_but_for_what_is_trained_on(
    mmdet_config: Config,
) -> None:
    own = load_base('datasets/coco_detection_detr.py')
    theirs = dict(mmdet_config.val_evaluator, type='FastCocoMetric')
    assert own.val_evaluator == theirs
    for key in ('train_dataloader', 'val_dataloader'):
        theirs = without(mmdet_config[key], 'pipeline')
        ours = without(own[key], 'pipeline')
        assert ours['dataset'].pop('type') == 'DETRCocoDataset'
        assert theirs['dataset'].pop('type') == 'CocoDataset'
        if key == 'train_dataloader':
            # Every image is trained on; mmdet leaves out those with a side
            # below this, and groups the others by their shape.
            assert theirs['dataset']['filter_cfg'].pop('min_size') == 32
            assert ours['dataset']['filter_cfg'].pop('filter_ignored') is False
            assert theirs.pop('batch_sampler')['type'].startswith('Aspect')
            assert ours.pop('drop_last') is True
        assert ours == theirs
    assert own.test_dataloader == own.val_dataloader
    assert own.test_evaluator == own.val_evaluator


def test_optimiser_is_mmdets(mmdet_config: Config) -> None:
    """mmdet's own config is of 50 epochs."""
    own = Config.fromfile(
        CONFIGS / 'h_detr/h-detr_r50_one-stage-baseline_8xb2-50e_coco.py'
    )
    assert own.optim_wrapper == mmdet_config.optim_wrapper
    assert own.param_scheduler == mmdet_config.param_scheduler
    assert own.train_cfg == mmdet_config.train_cfg


STEPS = {12: 11, 24: 20, 36: 30, 50: 40}
# detrex's two, the base file and its child, count iterations.
DETREX_STEPS = {12: (90000, 82500), 50: (375000, 300000)}


@pytest.mark.parametrize(
    'path', sorted((CONFIGS / 'h_detr').glob('*.py')), ids=lambda p: p.stem
)
def test_schedules_step_once(path: Path) -> None:
    config = Config.fromfile(path)
    epochs = next(number for number in STEPS if f'-{number}e_' in path.stem)
    total, step = epochs, STEPS[epochs]
    by_epoch = 'max_epochs' in config.train_cfg
    if path.stem.endswith(('coco-detrex', 'r50_one-stage_8xb2-50e_coco')):
        assert not by_epoch
        total, step = DETREX_STEPS[epochs]
    else:
        assert by_epoch
        assert config.max_epochs == epochs
    assert config.train_cfg['max_epochs' if by_epoch else 'max_iters'] == total
    (scheduler,) = config.param_scheduler
    assert scheduler.milestones == [step]
    assert (scheduler.end, scheduler.gamma) == (total, 0.1)
    assert scheduler.by_epoch == by_epoch
    assert config.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(
    ('name', 'total', 'step'),
    [
        ('r50_5scale_8xb2-12e_coco', 12, 10),
        ('r50_5scale_8xb2-24e_coco', 24, 20),
        ('r50_improved-baseline_8xb2-50e_coco', 50, 40),
        ('swin-l_5scale_16xb1-24e_coco', 24, 20),
        ('r50_5scale_8xb2-12e_coco-detrex', 90000, 75000),
        ('r50_5scale_8xb1-12e_coco', 180000, 150000),
    ],
)
def test_schedules_of_deta(name: str, total: int, step: int) -> None:
    config = Config.fromfile(CONFIGS / 'deta' / f'deta_{name}.py')
    loop = config.train_cfg
    assert loop.get('max_epochs', loop.get('max_iters')) == total
    (scheduler,) = config.param_scheduler
    assert scheduler.milestones == [step]
    assert (scheduler.end, scheduler.gamma) == (total, 0.1)


def test_images_of_detas_swin_are_half_as_large_again(tmp_path: Path) -> None:
    """But not the images that crops are taken from."""
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.zeros((600, 800, 3), np.uint8))
    name = 'deta/deta_swin-l_5scale_16xb1-24e_coco.py'
    config = Config.fromfile(CONFIGS / name)
    pipeline = Compose(config.train_dataloader.dataset.pipeline)
    np.random.seed(0)
    short_sides = set()
    for _ in range(30):
        out = pipeline(dict(img_path=str(path), img_id=0, instances=[]))
        short_sides.add(min(out['inputs'].shape[1:]))
        assert max(out['inputs'].shape[1:]) <= 2000
    assert short_sides <= set(range(720, 1201, 48))
    assert len(short_sides) > 5
    small = config.train_dataloader.dataset.pipeline[3].transforms[1][0]
    assert [min(scale) for scale in small.scales] == [400, 500, 600]
    for dataloader in (config.val_dataloader, config.test_dataloader):
        out = Compose(dataloader.dataset.pipeline)(
            dict(img_path=str(path), img_id=0, instances=[])
        )
        assert out['inputs'].shape[1:] == (1200, 1600)
    plain = load_base('datasets/coco_detection_detr.py')
    assert plain.train_pipeline != config.train_pipeline


def test_optimiser_groups_are_the_published_ones() -> None:
    """Against what the authors' code puts into its three groups."""
    path = SHARED / 'goldens/h_detr/keys_authors_r50_hybrid_tricks.json'
    if not path.exists():
        path = Path(__file__).parents[1] / 'data' / path.relative_to(SHARED)
    expected = json.loads(path.read_text())['optimizer_groups']
    config = Config.fromfile(CONFIGS / PUBLISHED)
    config.model.backbone.init_cfg = None
    model = build_model(config.model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer

    trained = {id(p) for p in model.parameters() if p.requires_grad}
    num_tensors = {2e-4: 0, 2e-5: 0}
    for group in optimizer.param_groups:
        assert group['weight_decay'] == 1e-4
        used = [p for p in group['params'] if id(p) in trained]
        num_tensors[round(group['lr'], 8)] += len(used)
    assert num_tensors == {
        2e-4: expected['base']['tensors'],
        2e-5: expected['linear_proj']['tensors']
        + expected['backbone']['tensors'],
    }


def test_augmentation_gives_the_sizes_of_the_recipe(tmp_path: Path) -> None:
    """800 x 600 pixels, one object in the middle and one at the border."""
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.zeros((600, 800, 3), np.uint8))
    pipeline = Compose(
        load_base('datasets/coco_detection_detr.py').train_pipeline
    )
    boxes = [[300, 200, 500, 400], [0, 0, 20, 20]]
    np.random.seed(0)
    ratios, num_objects, num_flips = [], set(), 0
    for _ in range(40):
        instances = [
            dict(bbox=box, bbox_label=i, ignore_flag=0)
            for i, box in enumerate(boxes)
        ]
        out = pipeline(dict(img_path=str(path), img_id=0, instances=instances))
        height, width = out['inputs'].shape[1:]
        assert min(height, width) in SHORT_SIDES or max(height, width) == 1333
        assert max(height, width) <= 1333
        sample = out['data_samples']
        found = sample.gt_instances.bboxes.tensor
        assert (found[:, 2:] > found[:, :2]).all()
        assert (found >= 0).all()
        assert (found[:, 2] <= width).all()
        assert (found[:, 3] <= height).all()
        ratios.append(width / height)
        num_objects.add(len(found))
        num_flips += sample.flip
    whole = [abs(ratio - 4 / 3) < 0.01 for ratio in ratios]
    assert 10 <= sum(whole) <= 30
    assert 10 <= num_flips <= 30
    assert num_objects >= {1, 2}


def test_boxes_follow_the_resize(tmp_path: Path) -> None:
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.zeros((300, 400, 3), np.uint8))
    pipeline = Compose(
        load_base('datasets/coco_detection_detr.py').test_pipeline
    )
    instance = dict(bbox=[10, 20, 30, 40], bbox_label=0, ignore_flag=0)
    out = pipeline(dict(img_path=str(path), img_id=0, instances=[instance]))
    assert out['inputs'].shape[1:] == (800, 1066)
    assert out['data_samples'].ori_shape == (300, 400)
    np.testing.assert_allclose(
        out['data_samples'].scale_factor, (1066 / 400, 800 / 300)
    )


def test_shapes_names_are_the_generators(shapes_root: Path) -> None:
    config = shapes_config(shapes_root)
    assert config.classes == SHAPE_CLASSES
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == SHAPE_CLASSES
    coco = json.loads((shapes_root / 'annotations/train.json').read_text())
    assert [c['name'] for c in coco['categories']] == list(SHAPE_CLASSES)


def test_shapes_load_with_their_boxes(shapes_root: Path) -> None:
    dataset = DATASETS.build(shapes_config(shapes_root).val_dataloader.dataset)
    coco = json.loads((shapes_root / 'annotations/val.json').read_text())
    assert len(dataset) == 4
    for sample in dataset:
        data = sample['data_samples']
        expected = [
            a for a in coco['annotations'] if a['image_id'] == data.img_id
        ]
        boxes = data.gt_instances.bboxes.tensor.numpy()
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_array_equal(
            boxes, np.reshape([a['bbox'] for a in expected], (-1, 4))
        )
        labels = [a['category_id'] - 1 for a in expected]
        assert data.gt_instances.labels.tolist() == labels
        assert sample['inputs'].shape[1:] == data.ori_shape


def test_images_without_objects_are_kept(shapes_root: Path) -> None:
    config = shapes_config(shapes_root).train_dataloader.dataset
    coco = json.loads((shapes_root / 'annotations/train.json').read_text())
    with_objects = {a['image_id'] for a in coco['annotations']}
    assert len(with_objects) < 50
    assert len(DATASETS.build(config)) == 50

    config.filter_cfg.filter_empty_gt = True  # what detrex does
    filtered = DATASETS.build(config)
    images = {
        filtered.get_data_info(i)['img_id'] for i in range(len(filtered))
    }
    assert images == with_objects


@pytest.fixture
def custom_config(tmp_path: Path) -> Config:
    """A dataset of two classes with everything that can be wrong in it."""
    boxes = {
        'good': [10, 10, 20, 20],
        'partly outside': [-10, 90, 30, 30],
        'outside': [200, 10, 20, 20],
        'no width': [10, 10, 0, 20],
        'negative height': [10, 10, 20, -5],
    }
    annotations = [
        dict(
            id=i,
            image_id=1,
            category_id=5,
            bbox=box,
            iscrowd=0,
            area=box[2] * box[3],
        )
        for i, box in enumerate(boxes.values(), start=1)
    ]
    annotations[0]['category_id'] = 9
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=100, height=100)
            for i in (1, 2)
        ],
        annotations=annotations,
        categories=[dict(id=9, name='cat'), dict(id=5, name='dog')],
    )
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        text = json.dumps(content)
        (tmp_path / 'annotations' / f'{split}.json').write_text(text)
        (tmp_path / split).mkdir()
        for i in (1, 2):
            image = np.full((100, 100, 3), 128, np.uint8)
            cv2.imwrite(str(tmp_path / split / f'{i}.png'), image)
    config = load_base('datasets/custom_coco_detection.py')
    config.merge_from_dict(
        dict(data_root=str(tmp_path), classes=('cat', 'dog'))
    )
    return resolve_config(config)


def test_custom_data_needs_root_and_classes_only(
    custom_config: Config, tmp_path: Path
) -> None:
    for split in ('train', 'val'):
        config = custom_config[f'{split}_dataloader'].dataset
        dataset = DATASETS.build(config)
        assert dataset.metainfo['classes'] == ('cat', 'dog')
        paths = [dataset.get_data_info(i)['img_path'] for i in range(2)]
        assert paths == [str(tmp_path / split / f'{i}.png') for i in (1, 2)]
    path = Path(custom_config.val_evaluator.ann_file)
    assert path == tmp_path / 'annotations' / 'val.json'


def test_boxes_without_visible_area_are_dropped(custom_config: Config) -> None:
    dataset = DATASETS.build(custom_config.train_dataloader.dataset)
    instances = dataset.get_data_info(0)['instances']
    assert [i['bbox'] for i in instances] == [
        [10, 10, 30, 30],
        [-10, 90, 20, 120],
    ]
    assert [i['bbox_label'] for i in instances] == [0, 1]

    for _ in range(20):  # any branch of the augmentation
        for sample in dataset:
            data = sample['data_samples']
            boxes = data.gt_instances.bboxes.tensor
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(dataset[1]['data_samples'].gt_instances) == 0


def test_dropped_boxes_still_count_in_evaluation(
    custom_config: Config,
) -> None:
    """Of five boxes two can be found, and one has a negative area."""
    dataset = DATASETS.build(custom_config.val_dataloader.dataset)
    metric = METRICS.build(custom_config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = np.reshape([i['bbox'] for i in info['instances']], (-1, 4))
        labels = [i['bbox_label'] for i in info['instances']]
        found = dict(
            bboxes=torch.from_numpy(boxes),
            labels=torch.tensor(labels, dtype=int),
            scores=torch.ones(len(labels)),
        )
        sample = dict(
            img_id=info['img_id'], ori_shape=(100, 100), pred_instances=found
        )
        metric.process({}, [sample])
    result = metric.evaluate(len(dataset))
    # All cats, one dog of three: precision is 1 up to a recall of 1/3, that
    # is for 34 of COCO's 101 points.
    assert result['coco/bbox_mAP'] == pytest.approx(
        (1 + 34 / 101) / 2, abs=1e-3
    )
