"""The numbers and files of mmdet's CocoMetric, computed by hotcoco."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load

from project.evaluation import FastCocoMetric, fast_coco_metric
from project.evaluation.hotcoco_eval import HotCOCOeval

CLASSES = ('cat', 'dog', 'cow', 'bird')
MINI = Path(__file__).parents[3] / 'shared' / 'data' / 'coco_mini'


@pytest.fixture
def hotcoco() -> None:
    pytest.importorskip('hotcoco')


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(x, y, w, h) of small, medium and large objects."""
    low, size = rng.random((count, 2)), np.exp(rng.normal(3.8, 1, (count, 2)))
    return np.concatenate([low * 300, size.clip(2, 300)], 1)


def write_annotations(path: Path, seed: int = 0, first_id: int = 1) -> dict:
    """Images with crowds, without objects, of classes left out."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(30):
        for box in random_boxes(rng, image % 7):
            annotations.append(
                dict(
                    id=first_id + len(annotations),
                    image_id=5 + 3 * image,
                    category_id=int(rng.choice([3, 8, 11, 40, 90])),
                    bbox=box.tolist(),
                    area=box[2:].prod() * 0.7,
                    iscrowd=int(rng.random() < 0.1),
                )
            )
    names = {3: 'cat', 11: 'dog', 8: 'cow', 40: 'bird', 90: 'left out'}
    truth = dict(
        images=[
            dict(id=5 + 3 * i, width=600, height=600, file_name=f'{i}.jpg')
            for i in range(30)
        ],
        categories=[dict(id=i, name=name) for i, name in names.items()],
        annotations=annotations,
    )
    path.write_text(json.dumps(truth))
    return truth


def detections(truth: dict, seed: int = 0, count: int = 120) -> list[dict]:
    """Samples as a detector gives them: near objects, elsewhere, with ties."""
    rng = np.random.default_rng(seed)
    samples = []
    for image in truth['images']:
        own = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        near = np.array([a['bbox'] for a in own for _ in range(4)])
        near = near.reshape(-1, 4) * np.exp(rng.normal(0, 0.1, (len(near), 4)))
        boxes = np.concatenate([near, random_boxes(rng, count)])
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            bboxes=torch.from_numpy(boxes).float(),
            scores=torch.from_numpy(rng.random(len(boxes)).round(2)).float(),
            labels=torch.from_numpy(rng.integers(0, 4, len(boxes))),
        )
        samples.append(
            dict(
                img_id=image['id'], ori_shape=(600, 600), pred_instances=found
            )
        )
    return samples


def evaluate(
    kind: type, samples: list[dict], classes: tuple = CLASSES, **kwargs
) -> dict:
    metric = kind(**kwargs)
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    return metric.compute_metrics(metric.results)


def assert_same(found: dict, expected: dict) -> None:
    """In any order; NaN where there is no object."""
    assert set(found) == set(expected)
    np.testing.assert_array_equal(
        list(found.values()), [expected[name] for name in found]
    )


SETTINGS = [
    dict(classwise=True, sort_categories=True),
    dict(metric=['bbox', 'proposal']),
    dict(proposal_nums=(1, 10, 100)),
    dict(metric_items=['mAP', 'AR@100', 'AR_s@1000'], sort_categories=True),
]


@pytest.mark.usefixtures('hotcoco')
@pytest.mark.parametrize('settings', SETTINGS)
def test_numbers_are_those_of_mmdet(tmp_path, monkeypatch, settings):
    path = tmp_path / 'truth.json'
    truth = write_annotations(path)
    samples = detections(truth)
    expected = evaluate(CocoMetric, samples, ann_file=str(path), **settings)
    monkeypatch.delattr(CocoMetric, 'compute_metrics')
    found = evaluate(FastCocoMetric, samples, ann_file=str(path), **settings)
    assert_same(found, expected)
    assert max(found.values()) > 0.01


@pytest.mark.parametrize('is_fast', [True, False])
def test_the_best_is_chosen_by_map_not_by_a_class(
    tmp_path, monkeypatch, is_fast
):
    """``save_best='auto'`` takes the first metric."""
    if is_fast:
        pytest.importorskip('hotcoco')
    else:
        monkeypatch.setattr(fast_coco_metric, 'has_hotcoco', lambda: False)
    path = tmp_path / 'truth.json'
    samples = detections(write_annotations(path))
    found = evaluate(
        FastCocoMetric, samples, ann_file=str(path), classwise=True
    )
    assert next(iter(found)) == 'bbox_mAP'
    assert list(found)[-4:] == [
        f'{name}_precision' for name in ('cat', 'cow', 'dog', 'bird')
    ]


@pytest.mark.usefixtures('hotcoco')
def test_all_digits_are_those_of_pycocotools(tmp_path, monkeypatch):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = tmp_path / 'truth.json'
    samples = detections(write_annotations(path))
    metric = FastCocoMetric(ann_file=str(path), format_only=False)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.cat_ids = [3, 11, 8, 40]
    metric.process({}, samples)
    made = []

    class Watched(HotCOCOeval):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(fast_coco_metric, 'HotCOCOeval', Watched)
    files = metric.results2json(
        [found for _, found in metric.results], str(tmp_path / 'out')
    )
    truth = COCO(path)
    slow = COCOeval(truth, truth.loadRes(files['bbox']), 'bbox')
    slow.params.maxDets = list(metric.proposal_nums)
    slow.params.catIds = metric.cat_ids
    slow.evaluate()
    slow.accumulate()
    slow.summarize()
    metric.evaluate(len(samples))
    (fast,) = made
    np.testing.assert_array_equal(fast.stats, slow.stats)
    for key in ('precision', 'recall', 'scores'):
        np.testing.assert_array_equal(fast.eval[key], slow.eval[key])


@pytest.mark.usefixtures('hotcoco')
@pytest.mark.skipif(not MINI.is_dir(), reason='needs the real sample')
def test_numbers_on_real_annotations(monkeypatch):
    path = next((MINI / 'annotations').glob('*val*.json'))
    truth = json.loads(path.read_text())
    classes = tuple(category['name'] for category in truth['categories'])
    samples = detections(truth)
    settings = dict(ann_file=str(path), classwise=True)
    expected = evaluate(CocoMetric, samples, classes, **settings)
    monkeypatch.delattr(CocoMetric, 'compute_metrics')
    found = evaluate(FastCocoMetric, samples, classes, **settings)
    assert_same(found, expected)


@pytest.mark.parametrize('is_fast', [True, False])
def test_ap_of_each_class_where_ids_descend(tmp_path, monkeypatch, is_fast):
    """Cows alone are found; mmdet's metric says that birds are."""
    if is_fast:
        pytest.importorskip('hotcoco')
    else:
        monkeypatch.setattr(fast_coco_metric, 'has_hotcoco', lambda: False)
    boxes = [[10, 10, 50, 50], [100, 100, 80, 80]]
    truth = dict(
        images=[dict(id=1, width=300, height=300, file_name='1.jpg')],
        categories=[dict(id=9, name='cow'), dict(id=4, name='bird')],
        annotations=[
            dict(
                id=1 + index,
                image_id=1,
                category_id=(9, 4)[index],
                bbox=box,
                area=box[2] * box[3],
                iscrowd=0,
            )
            for index, box in enumerate(boxes)
        ],
    )
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    cow = dict(
        bboxes=torch.tensor([[10.0, 10, 60, 60]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
    )
    samples = [dict(img_id=1, ori_shape=(300, 300), pred_instances=cow)]
    prefix = str(tmp_path / 'found')
    found = evaluate(
        FastCocoMetric,
        samples,
        ('cow', 'bird'),
        ann_file=str(path),
        classwise=True,
        outfile_prefix=prefix,
    )
    assert found['cow_precision'] == 1
    assert found['bird_precision'] == 0
    assert found['bbox_mAP'] == 0.5
    assert [row['category_id'] for row in load(f'{prefix}.bbox.json')] == [9]


def test_the_file_of_detections_is_that_of_mmdet(tmp_path):
    path = tmp_path / 'truth.json'
    truth = write_annotations(path)
    samples = detections(truth, count=3)
    contents = []
    for kind in (CocoMetric, FastCocoMetric):
        prefix = tmp_path / kind.__name__
        evaluate(
            kind,
            samples,
            ann_file=str(path),
            format_only=True,
            outfile_prefix=str(prefix),
        )
        contents.append(load(f'{prefix}.bbox.json'))
    assert contents[0] == contents[1]


@pytest.mark.parametrize('first_id', [0, 1])
def test_pycocotools_serves_where_hotcoco_cannot(
    tmp_path, monkeypatch, first_id
):
    """Without hotcoco, or with an id that pycocotools counts as none."""
    path = tmp_path / 'truth.json'
    samples = detections(write_annotations(path, first_id=first_id), count=9)
    if first_id:
        monkeypatch.setattr(fast_coco_metric, 'has_hotcoco', lambda: False)
    monkeypatch.delattr(HotCOCOeval, 'evaluate')
    found, expected = (
        evaluate(kind, samples, ann_file=str(path))
        for kind in (FastCocoMetric, CocoMetric)
    )
    assert found == expected


@pytest.mark.usefixtures('hotcoco')
def test_no_detection_at_all(tmp_path):
    path = tmp_path / 'truth.json'
    samples = detections(write_annotations(path), count=0)
    for sample in samples:
        found = sample['pred_instances']
        sample['pred_instances'] = {k: v[:0] for k, v in found.items()}
    assert evaluate(FastCocoMetric, samples, ann_file=str(path)) == {}


def test_an_unknown_item_is_told(tmp_path):
    path = tmp_path / 'truth.json'
    samples = detections(write_annotations(path), count=3)
    with pytest.raises(KeyError, match='mAP_xl'):
        evaluate(
            FastCocoMetric,
            samples,
            ann_file=str(path),
            metric_items=['mAP_xl'],
        )


def test_mmdet_finds_it_by_its_name():
    assert METRICS.get('FastCocoMetric') is FastCocoMetric
    code = (
        'import project, sys; from mmdet.registry import METRICS; '
        "assert METRICS.get('FastCocoMetric'); assert 'hotcoco' not in "
        'sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
