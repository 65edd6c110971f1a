"""A report's numbers are those of the evaluation, and its page is whole."""

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from project.apis import report
from project.evaluation import FastCocoMetric, detection_report
from project.evaluation.f1 import Boxes, Detections, best_threshold
from project.evaluation.layer_records import LayerRecord
from project.utils.errors import UserError
from tests.helpers.chromium import CHROMIUM, check_fits
from tests.helpers.trained import write_trained
from tests.helpers.training import TOY_CONFIG, load_tool

hotcoco = pytest.importorskip('hotcoco')
KEYS = ('bboxes', 'scores', 'labels')
NAMES = ('cat', 'dog', 'a bird & more', 'never seen')


class Images:
    """A dataset of images that are all the same."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def __len__(self) -> int:
        return self.size

    def get_data_info(self, index: int) -> dict:
        return dict(img_id=index + 1, img_path=str(self.path))


def make_truth(folder: Path, names: tuple[str, ...], size: int) -> Path:
    """Annotations of images with 0 to 4 objects, of all classes but one."""
    rng = np.random.default_rng(0)
    annotations = [
        dict(
            id=10 * image + number,
            image_id=image,
            category_id=int(rng.integers(1, len(names))),
            bbox=[*rng.uniform(0, 90, 2), *rng.uniform(8, 110, 2)],
            iscrowd=int(number == 4),
        )
        for image in range(1, size + 1)
        for number in range(image % 5)
    ]
    for annotation in annotations:
        annotation['area'] = float(np.prod(annotation['bbox'][2:]))
    truth = dict(
        images=[
            dict(id=i, width=200, height=200, file_name='photo.jpg')
            for i in range(1, size + 1)
        ],
        categories=[dict(id=i, name=n) for i, n in enumerate(names, 1)],
        annotations=annotations,
    )
    path = folder / 'truth.json'
    path.write_text(json.dumps(truth))
    pixels = rng.integers(90, 150, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / 'photo.jpg')
    return path


def make_samples(path: Path, noise: float) -> list[dict]:
    """Detections near the objects, of their class or the next, and others."""
    rng = np.random.default_rng(1)
    truth = json.loads(path.read_text())
    count = len(truth['categories'])
    samples = []
    for image in truth['images']:
        own = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in own] * 2).reshape(-1, 4)
        boxes = boxes * np.exp(rng.normal(0, noise, boxes.shape))
        labels = np.array([a['category_id'] - 1 for a in own] * 2, int)
        labels = (labels + (rng.random(len(labels)) < 0.2)) % count
        others = rng.uniform(5, 90, (3, 4))
        boxes = np.concatenate([boxes, others])
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.from_numpy(rng.random(len(boxes))),
            labels=torch.from_numpy(
                np.append(labels, rng.integers(0, count, 3))
            ),
        )
        samples.append(
            dict(
                img_id=image['id'], ori_shape=(200, 200), pred_instances=found
            )
        )
    return samples


def evaluate(
    kind: type[FastCocoMetric], path: Path, samples: list[dict]
) -> tuple[FastCocoMetric, dict[str, float]]:
    names = [c['name'] for c in json.loads(path.read_text())['categories']]
    metric = kind(ann_file=str(path), classwise=True)
    metric.dataset_meta = dict(classes=names)
    metric.process({}, samples)
    return metric, metric.compute_metrics(metric.results)


def make_records(path: Path, noises: tuple[float, float]) -> dict:
    """What two layers detect, and five queries whose order changes."""
    samples = [make_samples(path, noise) for noise in noises]
    scores = np.linspace(0.1, 0.9, 5)
    boxes = np.tile([0.0, 0.0, 20.0, 20.0], (5, 1))
    records = {}
    for layers in zip(*samples, strict=True):
        first, last = (
            np.column_stack([x['pred_instances'][key] for key in KEYS])
            for x in layers
        )
        records[layers[0]['img_id']] = LayerRecord(
            np.stack([scores, scores[::-1]]),
            np.zeros((2, 5), int),
            np.stack([boxes, boxes * [1, 1, 1, 0.5]]),
            np.full((5, 4), np.nan),
            {
                ('', 1): first,
                ('', 2): last,
                ('a refiner', 1): first,
                ('a refiner', 2): first,
                ('without a refiner', 2): first,
            },
        )
    return records


def make_page(
    folder: Path, names: tuple[str, ...], noises: tuple[float, ...], size: int
) -> tuple[str, list[report.Run]]:
    """The page on made-up detections."""
    path = make_truth(folder, names, size)
    runs = []
    for index, noise in enumerate(noises):
        metric, _ = evaluate(
            detection_report.ReportCocoMetric, path, make_samples(path, noise)
        )
        metric.evaluated.records = make_records(path, (0.3, noise))
        findings = detection_report.analyse(metric.evaluated)
        runs.append(
            report.Run(f'w/epoch_{index}.pth', metric.evaluated, findings, 0.1)
        )
    evaluator = Config(
        dict(x=[dict(type='ReportCocoMetric', ann_file=str(path))])
    )
    runner = SimpleNamespace(
        model=torch.nn.Linear(1, 1),
        cfg=SimpleNamespace(filename='a.py', test_evaluator=evaluator.x),
        test_dataloader=SimpleNamespace(
            dataset=Images(folder / 'photo.jpg', size), batch_size=1
        ),
    )
    return report.make_page(runner, runs), runs


@pytest.fixture(scope='module')
def page(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, list[report.Run], Path]:
    folder = tmp_path_factory.mktemp('report')
    text, runs = make_page(folder, NAMES, (0.05, 0.2), 30)
    return text, runs, folder / 'truth.json'


def rows_of(page: str, section: str = '') -> dict[str, list[str]]:
    """Cells of the tables in an element, by the first of the row."""
    part = page[page.index(f'id="{section}"') :] if section else page
    part = part[: part.index('</table>')]
    rows = re.findall(r'<tr><td>(.*?)</td>(.*?)</tr>', part, re.S)
    return {name: re.findall(r'<td>(.*?)</td>', cells) for name, cells in rows}


def test_numbers_are_those_of_the_metric(page: tuple) -> None:
    text, _, path = page
    expected = [
        evaluate(FastCocoMetric, path, make_samples(path, noise))[1]
        for noise in (0.05, 0.2)
    ]
    shown = rows_of(text, 'metrics')
    for name, label in report_metrics().items():
        values = [x[f'bbox_{name}'] for x in expected]
        change = f'{values[0] - values[1]:+.3f}'
        assert shown[label] == [*(f'{v:.3f}' for v in values), change]
    assert float(shown['AP'][0]) > float(shown['AP'][1]) > 0.05
    classes = rows_of(text, 'classes')
    for name in NAMES[:2]:
        values = [x[f'{name}_precision'] for x in expected]
        assert classes[name][1:3] == [f'{v:.3f}' for v in values]
    assert classes['a bird &amp; more'][1] != '-'
    assert classes['never seen'][:3] == ['0', '-', '-']


def test_layers_are_those_of_the_metric(page: tuple) -> None:
    text, (run, _), path = page
    layers = run.findings.layers
    assert layers.num_images == 30
    for number, noise in ((1, 0.3), (2, 0.05)):
        samples = make_samples(path, noise)
        _, values = evaluate(FastCocoMetric, path, samples)
        expected = [values[f'bbox_mAP{x}'] for x in ('', '_50', '_75')]
        found = layers.precisions['', number]
        assert np.round(found, 3).tolist() == expected
    assert layers.precisions['', 1] < layers.precisions['', 2]
    np.testing.assert_allclose(layers.kept_boxes, [np.nan, 0.5])
    np.testing.assert_allclose(layers.kept_ranks, [np.nan, -1])
    shown = rows_of(text, 'layers')
    assert shown['1'][:1] == [f'{layers.precisions["", 1][0]:.3f}']
    assert shown['2'][3:5] == ['0.500', '-1.000']
    first, last = (f'{layers.precisions["", k][0]:.3f}' for k in (1, 2))
    assert rows_of(text, 'refiners') == {
        'all merged, as it detects': [first, last],
        'a refiner': [first, first],
    }
    without = rows_of(text, 'without')
    assert without['without a refiner'][:2] == [first, last]
    assert without['without a refiner'][2].startswith('-0.')


def report_metrics() -> dict[str, str]:
    from project.visualization.report_page import METRICS

    return METRICS


def test_thresholds_are_those_of_the_sheet(page: tuple) -> None:
    """Which matches by itself; crowds aside."""
    _, _, path = page
    truth = json.loads(path.read_text())
    crowded = {a['image_id'] for a in truth['annotations'] if a['iscrowd']}
    truth['images'] = [x for x in truth['images'] if x['id'] not in crowded]
    kept = {x['id'] for x in truth['images']}
    truth['annotations'] = [
        a for a in truth['annotations'] if a['image_id'] in kept
    ]
    without = path.with_name('without_crowds.json')
    without.write_text(json.dumps(truth))
    samples = make_samples(without, 0.05)
    metric, _ = evaluate(detection_report.ReportCocoMetric, without, samples)
    findings = detection_report.analyse(metric.evaluated)
    pairs = []
    for sample in samples:
        own = [
            a
            for a in truth['annotations']
            if a['image_id'] == sample['img_id']
        ]
        boxes = np.array([a['bbox'] for a in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([a['category_id'] - 1 for a in own], int)
        found = {k: v.numpy() for k, v in sample['pred_instances'].items()}
        pairs.append((Detections(**found), Boxes(boxes, labels)))
    expected = best_threshold(pairs)
    assert expected[1] > 0.3
    assert (findings.threshold, findings.f1) == pytest.approx(expected)


def test_findings_add_up(page: tuple) -> None:
    _, (run, _), path = page
    findings = run.findings
    annotations = json.loads(path.read_text())['annotations']
    objects = [a for a in annotations if not a['iscrowd']]
    counts = [x.num_objects for x in findings.classes]
    assert sum(counts) == len(objects)
    assert findings.confusion[:-1].sum(1).tolist() == counts
    assert np.trace(findings.confusion) > len(objects) / 4
    by_image = [a['image_id'] for a in objects]
    assert sum(n for n, _ in findings.crowding.values()) == len(set(by_image))
    assert set(findings.ranked_images) == set(by_image)
    precisions = [findings.image_precisions[i] for i in findings.ranked_images]
    assert precisions == sorted(precisions)
    assert all(cost >= 0 for _, cost in findings.errors.values())


def test_the_page_needs_nothing_else(page: tuple) -> None:
    text, _, _ = page
    assert len(text) < 5_000_000
    for source in re.findall('(?:src|href)="(.*?)"', text):
        assert source.startswith(('data:', '#'))
    assert 'url(' not in re.sub(r'url\(#\w+\)', '', text)
    assert text.count('<svg') == 5 + 2 * 3
    assert text.count('data:image/jpeg') == 3 * 20
    assert 'a bird & more' not in text  # escaped


@pytest.fixture(scope='module')
def checkpoint(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'first.pth'
    write_trained(path, toy_data)
    return path


@pytest.fixture
def run(
    toy_data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable:
    def run(*options: str, cfg_options: tuple[str, ...] = ()) -> None:
        monkeypatch.setenv('LOCAL_RANK', '0')
        command = [str(TOY_CONFIG), str(checkpoint), *options]
        command += ['--work-dir', str(tmp_path / 'work'), '--cfg-options']
        command += [f'data_root={toy_data}', *cfg_options]
        name = uuid.uuid4().hex  # mmengine's objects are global
        command += [f'experiment_name={name}', f'visualizer.name={name}']
        load_tool('report').main(command)

    return run


def test_two_checkpoints_are_compared(
    run: Callable, checkpoint: Path, toy_data: Path, tmp_path: Path
) -> None:
    other = tmp_path / 'second.pth'
    write_trained(other, toy_data)
    out = tmp_path / 'new' / 'report.html'
    run('--out', str(out), '--against', str(other))
    text = out.read_text(encoding='utf-8')
    assert '<th>first</th><th>second</th><th>change</th>' in text
    assert f'<td>{other}</td>' in text
    assert len(re.findall('s per image, loading included', text)) == 2
    (logged,) = (tmp_path / 'work').glob('2*/*.json')
    values = [json.loads(x) for x in logged.read_text().splitlines()]
    shown = rows_of(text, 'metrics')
    for index, value in enumerate(values):
        assert shown['AP'][index] == f'{value["coco/bbox_mAP"]:.3f}'
    assert len(rows_of(text, 'layers')) == 2


def test_mistakes_are_told_before_the_test(
    run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        run('--out', str(tmp_path / 'file' / 'report.html'))
    assert 'cannot be written' in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r'checkpoint no\.pth does not'):
        run('--against', 'no.pth')
    torch.save(dict(state_dict={}), tmp_path / 'empty.pth')
    out = ('--out', str(tmp_path / 'report.html'))
    with pytest.raises(SystemExit, match=r'empty\.pth'):
        run('--against', str(tmp_path / 'empty.pth'), *out)
    with pytest.raises(SystemExit, match='needs a test_evaluator with metric'):
        run(*out, cfg_options=('test_evaluator.metric=proposal',))
    monkeypatch.setattr(detection_report, 'has_hotcoco', lambda: False)
    with pytest.raises(SystemExit, match='not installed; run pip install'):
        run(*out)
    assert not (tmp_path / 'report.html').exists()


def test_other_metrics_are_refused() -> None:
    config = Config(dict(test_evaluator=dict(type='VOCMetric')))
    with pytest.raises(UserError, match='test_evaluator has VOCMetric'):
        report.keep_evaluation(config)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
@pytest.mark.parametrize(
    ('num_classes', 'noises'), [(3, (0.1,)), (80, (0.05, 0.2))]
)
def test_the_page_fits_the_screen(
    num_classes: int, noises: tuple[float, ...], tmp_path: Path
) -> None:
    """With SCREENSHOTS=FOLDER its pictures are kept."""
    names = tuple(f'class number {i}' for i in range(num_classes))
    text, _ = make_page(tmp_path, names, noises, 200)
    assert len(text) < 5_000_000
    check_fits(text, tmp_path)
