"""The pictures: what they read, what they refuse, that they get drawn."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from project.evaluation.f1 import Boxes, Detections, best_threshold
from project.preflight.variables import resolve_config
from project.visualization.detection_sheet import (
    Example,
    detect_examples,
    draw_sheet,
)
from project.visualization.training_curves import read_curves
from tests.helpers.toy import build_model
from tests.helpers.training import (
    TOY_CONFIG,
    load_tool,
    toy_config,
)

plot_training = load_tool('analysis_tools/plot_training')
detection_sheet = load_tool('analysis_tools/detection_sheet')


def write_log(work_dir: Path, run: str, entries: list[dict]) -> None:
    folder = work_dir / run / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(entry) for entry in entries]
    (folder / 'scalars.json').write_text('\n'.join(lines))


def loss(step: int, value: float) -> dict:
    return dict(loss=value, loss_cls=9.0, step=step)


def mean_ap(epoch: int, value: float) -> dict:
    return {'coco/bbox_mAP': value, 'coco/bbox_mAP_50': 1.0, 'step': epoch}


def test_curves_share_the_iterations_as_axis(tmp_path: Path) -> None:
    entries = [loss(10, 5.0), loss(20, 4.0), mean_ap(1, 0.1), loss(30, 3.0)]
    write_log(tmp_path, '20260101_000000', [*entries, mean_ap(2, 0.2)])

    curves = read_curves(tmp_path)
    assert curves.losses == [(10, 5.0), (20, 4.0), (30, 3.0)]
    assert curves.metrics['coco/bbox_mAP'] == [(20, 0.1), (30, 0.2)]


def test_a_resumed_run_goes_on_where_it_started(tmp_path: Path) -> None:
    first = [loss(10, 5.0), loss(20, 4.0), mean_ap(1, 0.1), loss(30, 9.0)]
    write_log(tmp_path, '20260101_000000', first)
    write_log(tmp_path, '20260102_000000', [mean_ap(1, 0.9)])  # a test
    second = [loss(30, 3.0), mean_ap(2, 0.2)]
    write_log(tmp_path, '20260103_000000', second)

    curves = read_curves(tmp_path)
    assert curves.losses == [(10, 5.0), (20, 4.0), (30, 3.0)]
    assert curves.metrics['coco/bbox_mAP'] == [(20, 0.1), (30, 0.2)]


def test_a_run_from_the_start_replaces_all(tmp_path: Path) -> None:
    write_log(tmp_path, '20260101_000000', [loss(10, 5.0), mean_ap(1, 0.1)])
    write_log(tmp_path, '20260102_000000', [loss(10, 7.0)])

    curves = read_curves(tmp_path)
    assert curves.losses == [(10, 7.0)]
    assert curves.metrics['coco/bbox_mAP'] == []


@pytest.mark.parametrize('end', ['{"loss": 3.0, "st', '\0\0\0', '[7]'])
def test_a_line_that_a_kill_has_cut_off_is_left_out(
    tmp_path: Path, end: str
) -> None:
    write_log(tmp_path, '20260101_000000', [loss(10, 5.0), mean_ap(1, 0.1)])
    with (tmp_path / '20260101_000000/vis_data/scalars.json').open('a') as log:
        log.write(f'\n{end}')
    curves = read_curves(tmp_path)
    assert curves.losses == [(10, 5.0)]
    assert curves.metrics['coco/bbox_mAP'] == [(10, 0.1)]


@pytest.mark.parametrize('with_metrics', [False, True])
def test_curves_are_drawn(tmp_path: Path, with_metrics: bool) -> None:
    entries = [loss(step, 1 / step) for step in range(1, 40)]
    if with_metrics:
        entries.append(mean_ap(1, 0.3))
    write_log(tmp_path, '20260101_000000', entries)
    plot_training.main([str(tmp_path), '--title', 'a title'])

    image = cv2.imread(str(tmp_path / 'training.png'))
    assert image.shape == (546, 1456 if with_metrics else 728, 3)
    for panel in np.array_split(image, 2 if with_metrics else 1, axis=1):
        assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 50


def test_trainings_are_compared(tmp_path: Path) -> None:
    """A panel for each metric, with the curves of those that have it."""
    work_dirs = [tmp_path / name for name in ('with', 'without', 'untested')]
    for work_dir, value in zip(work_dirs, (0.4, 0.3, None), strict=True):
        entries = [loss(step, 1 / step) for step in range(1, 40)]
        if value is not None:
            entries += [mean_ap(1, value), loss(40, 0.1), mean_ap(2, value)]
        write_log(work_dir, '20260101_000000', entries)
    out = tmp_path / 'compared.png'
    plot_training.main([*map(str, work_dirs), '--out', str(out)])

    image = cv2.imread(str(out))
    assert image.shape == (546, 1456, 3)
    blue, orange = (0x7B, 0x50, 0x12), (0x32, 0x80, 0xD9)  # BGR
    for panel in np.array_split(image, 2, axis=1):
        for color in (blue, orange):
            assert (panel == color).all(-1).sum() > 50


def test_trainings_that_cannot_be_compared(tmp_path: Path) -> None:
    work_dirs = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']
    for work_dir in work_dirs:
        write_log(work_dir, '20260101_000000', [loss(1, 1.0)])
    with pytest.raises(SystemExit, match='Error: the work dirs have one name'):
        plot_training.main(list(map(str, work_dirs)))
    other = tmp_path / 'other'
    write_log(other, '20260101_000000', [loss(1, 1.0)])
    with pytest.raises(SystemExit, match='run, other hold no evaluation'):
        plot_training.main([str(work_dirs[0]), str(other)])


def test_a_folder_without_a_log_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match=f'Error: {tmp_path} has no log'):
        plot_training.main([str(tmp_path)])


class FixedDetector(torch.nn.Module):
    """Finds the same two objects in every image."""

    def test_step(self, data: dict) -> list:
        sample = data['data_samples'][0]
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[1.0, 2, 30, 40], [5, 5, 9, 9]]),
            labels=torch.tensor([3, 1]),
            scores=torch.tensor([0.9, 0.29]),
        )
        return [sample]


def toy_dataset(data_root: Path, work_dir: Path) -> BaseDataset:
    config = resolve_config(toy_config(data_root, work_dir))
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(config.test_dataloader.dataset)


def test_examples_hold_truth_and_likely_detections(
    toy_data: Path, tmp_path: Path
) -> None:
    dataset = toy_dataset(toy_data, tmp_path)
    examples, score_thr, f1 = detect_examples(
        FixedDetector(), dataset, num_images=3, score_thr=0.3
    )
    assert (score_thr, f1) == (0.3, None)
    assert len(examples) == 3
    coco = json.loads((toy_data / 'annotations/val.json').read_text())
    for example, index in zip(examples, (0, 2, 4), strict=True):
        info = coco['images'][index]
        assert example.path == str(toy_data / 'val' / info['file_name'])
        annotations = [
            a for a in coco['annotations'] if a['image_id'] == info['id']
        ]
        boxes = np.reshape([a['bbox'] for a in annotations], (-1, 4))
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(example.truth.bboxes, boxes)
        labels = [a['category_id'] - 1 for a in annotations]
        assert example.truth.labels.tolist() == labels
        assert example.detections.labels.tolist() == [3]
        assert example.detections.bboxes.tolist() == [[1, 2, 30, 40]]


def test_no_more_examples_than_images(toy_data: Path, tmp_path: Path) -> None:
    dataset = toy_dataset(toy_data, tmp_path)
    examples, _, _ = detect_examples(
        FixedDetector(), dataset, num_images=99, score_thr=1.0
    )
    assert len(examples) == 5
    assert all(len(e.detections.labels) == 0 for e in examples)


def boxes(*rows: tuple, scored: bool = True) -> Boxes:
    """Boxes (x1, y1, x2, y2, label, score)."""
    table = np.array(rows, dtype=float).reshape(-1, 6 if scored else 5)
    unscored = table[:, :4], table[:, 4].astype(int)
    return Detections(*unscored, table[:, 5]) if scored else Boxes(*unscored)


def test_the_threshold_is_where_f1_is_highest() -> None:
    """Sorted: a hit, a duplicate of it, a hit, then only misses."""
    first = (
        boxes(
            (0, 0, 10, 10, 0, 0.9),
            (0, 0, 10, 9, 0, 0.8),
            (50, 50, 60, 60, 0, 0.3),
        ),
        boxes((0, 0, 10, 10, 0), scored=False),
    )
    second = (
        boxes((20, 20, 40, 40, 2, 0.6), (20, 20, 40, 40, 1, 0.2)),
        boxes((20, 20, 40, 41, 2), (0, 0, 5, 5, 1), scored=False),
    )
    # Kept down to 0.9: 2/4; 0.8: 2/5; 0.6: 4/6; 0.3: 4/7; 0.2: 4/8.
    score, f1 = best_threshold([first, second])
    assert score == pytest.approx(0.6)
    assert f1 == pytest.approx(4 / 6)


def test_equal_scores_are_kept_together() -> None:
    detections = boxes((0, 0, 10, 10, 0, 0.5), (50, 50, 60, 60, 0, 0.5))
    truth = boxes((0, 0, 10, 10, 0), scored=False)
    assert best_threshold([(detections, truth)]) == (0.5, pytest.approx(2 / 3))


def test_without_a_hit_half_is_the_threshold() -> None:
    nothing = boxes(), boxes((0, 0, 10, 10, 0), scored=False)
    missed = boxes((0, 0, 10, 10, 0, 0.9)), boxes(scored=False)
    assert best_threshold([nothing]) == (0.5, 0.0)
    assert best_threshold([missed]) == (0.5, 0.0)


def test_labels_stand_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four boxes that share a corner, each with a label of its own place."""
    path = tmp_path / 'grey.png'
    cv2.imwrite(str(path), np.full((100, 100, 3), 128, np.uint8))
    truth = boxes(
        *((40, 40, 60 + 5 * i, 60 + 5 * i, i) for i in range(4)), scored=False
    )
    extents = []
    save = Figure.savefig

    def measure(figure: Figure, *args, **kwargs) -> None:
        panel = figure.findobj(Axes)[0]
        extents.extend(text.get_window_extent() for text in panel.texts)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', measure)
    example = Example(path=str(path), truth=truth, detections=boxes())
    draw_sheet([example], ['one', 'two', 'three', 'four'], path, 'a title')
    assert len(extents) == 4
    for index, extent in enumerate(extents):
        for other in extents[:index]:
            assert Bbox.intersection(extent, other) is None


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the toy model as they are at first."""
    model = build_model(Config.fromfile(TOY_CONFIG).model)
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def draw_toy_sheet(data_root: Path, weights: Path, *options: str) -> None:
    command = [str(TOY_CONFIG), str(weights), '--device', 'cpu', *options]
    command += ['--cfg-options', f'data_root={data_root}']
    detection_sheet.main(command)


def test_a_sheet_is_drawn(
    toy_data: Path, weights: Path, tmp_path: Path
) -> None:
    sizes = []
    for num_images in (2, 5):
        path = tmp_path / f'{num_images}.png'
        options = ['--out', str(path), '--score-thr', '0']
        options += ['--num-images', str(num_images)]
        draw_toy_sheet(toy_data, weights, *options)
        image = cv2.imread(str(path))
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1000
        sizes.append(image.shape)
    # Three pairs stand in a row.
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


def test_a_checkpoint_of_another_model_is_refused(
    toy_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), path)
    with pytest.raises(SystemExit, match=r'Error: .* is no checkpoint of'):
        draw_toy_sheet(toy_data, path)


def test_missing_files_are_named(toy_data: Path, weights: Path) -> None:
    with pytest.raises(SystemExit, match=r'Error: The config no\.py does no'):
        detection_sheet.main(['no.py', str(weights)])
    with pytest.raises(SystemExit, match='Error: The data root nowhere'):
        draw_toy_sheet(Path('nowhere'), weights)
    with pytest.raises(SystemExit, match=r'The checkpoint no\.pth does not'):
        draw_toy_sheet(toy_data, Path('no.pth'))
