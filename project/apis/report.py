# Copyright (c) mmdetr authors. All rights reserved.
"""A test with a report: one HTML page on what a detector gets wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from project.checkpoints.start_checks import check_checkpoint
from project.evaluation.detection_report import (
    Evaluated,
    Findings,
    ReportCocoMetric,
    analyse,
    check_hotcoco,
)
from project.evaluation.f1 import Boxes, Detections
from project.evaluation.layer_records import (
    NUM_IMAGES,
    LayerRecorder,
    has_layers,
)
from project.utils.errors import UserError
from project.version import __version__
from project.visualization.report_page import Picture, draw_picture, render

NUM_PICTURES = 10
"""Images among the worst, and among the best, at most."""


@dataclass
class Run:
    """A test of one checkpoint.

    Attributes:
        checkpoint: Path of the weights.
        evaluated: What the metric was computed from.
        findings: What it tells.
        seconds: Per image, with loading; None if it was not measured.
    """

    checkpoint: str
    evaluated: Evaluated
    findings: Findings
    seconds: float | None


def keep_evaluation(cfg: Config) -> None:
    """Let a test keep what a report is made of.

    Args:
        cfg: Its COCO metric of the test is replaced by
            ``ReportCocoMetric``, which gives the same numbers.

    Raises:
        UserError: If hotcoco is missing or there is no such metric.
    """
    check_hotcoco()
    given = cfg.get('test_evaluator') or []
    metrics = [given] if isinstance(given, dict) else list(given)
    for metric in metrics:
        kind = metric['type']
        kind = METRICS.get(kind) if isinstance(kind, str) else kind
        if kind is not None and issubclass(kind, CocoMetric):
            metric.update(type='ReportCocoMetric', classwise=True)
            cfg.test_evaluator = metrics
            return
    names = ', '.join(str(metric['type']) for metric in metrics)
    raise UserError(
        'A report is made of the results of a CocoMetric, and test_evaluator '
        f'has {names or "none"}'
    )


def write_report(
    runner: Runner, out: str | Path, against: str | None = None
) -> None:
    """Test the checkpoint of a runner, maybe a second one, and report.

    Args:
        runner: Built from a config after :func:`keep_evaluation`, with
            ``load_from``. Of several processes the first one writes.
        out: The HTML file.
        against: Path of the weights to compare with.

    Raises:
        UserError: If a checkpoint does not fit, or nothing is detected.
    """
    if against is not None:
        check_checkpoint(against, _unwrapped(runner))
    checkpoint = str(runner.cfg.load_from)
    if has_layers(_unwrapped(runner)):
        runner.register_hook(_LayerHook())
    runs = [_test(runner, checkpoint)]
    if against is not None:
        runner._load_from, runner._has_loaded = against, False
        runs.append(_test(runner, against))
    done = [run for run in runs if run is not None]
    if done:
        page = make_page(runner, done)
        Path(out).write_text(page, encoding='utf-8')
        runner.logger.info(f'Report: {out}')


class _LayerHook(Hook):
    """Lets the decoder layers be recorded during a test."""

    def before_test(self, runner: Runner) -> None:
        self.recorder = LayerRecorder(
            _unwrapped(runner), -(-NUM_IMAGES // runner.world_size)
        )
        _metric(runner).recorder = self.recorder
        self.recorder.start()

    def after_test(self, runner: Runner) -> None:
        self.recorder.stop()


def _unwrapped(runner: Runner) -> nn.Module:
    """The model without what distributes it."""
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    return model


def _metric(runner: Runner) -> ReportCocoMetric:
    """What a report is made of."""
    (metric,) = [
        metric
        for metric in runner.test_loop.evaluator.metrics
        if isinstance(metric, ReportCocoMetric)
    ]
    return metric


def _test(runner: Runner, checkpoint: str) -> Run | None:
    """Test the checkpoint that is to be loaded; None if not the first."""
    runner.test()
    if runner.rank != 0:
        return None
    metric = _metric(runner)
    if metric.evaluated is None:
        raise UserError(
            f'{checkpoint} detects nothing in the test set, so there is '
            'nothing to report'
        )
    loader = runner.test_dataloader
    times = runner.message_hub.log_scalars.get('test/time')
    seconds = None
    if times is not None:
        spent = times.data[0][-len(loader) :].sum()
        spent -= metric.recorder.seconds if metric.recorder else 0.0
        seconds = float(spent) / max(len(loader.dataset), 1)
    findings = analyse(metric.evaluated)
    return Run(checkpoint, metric.evaluated, findings, seconds)


def make_page(runner: Runner, runs: Sequence[Run]) -> str:
    """Write the page on one or two tests of the same images.

    Args:
        runner: What tested.
        runs: The tests.

    Returns:
        str: HTML.
    """
    names = _names([run.checkpoint for run in runs])
    named = dict(zip(names, runs, strict=True))
    ranked = runs[0].findings.ranked_images
    num_worst = min(NUM_PICTURES, (len(ranked) + 1) // 2)
    precisions = runs[0].findings.image_precisions
    # Among equals those with more objects are first, here as well.
    best = sorted(ranked[num_worst:], key=lambda i: -precisions[i])
    picked = [*ranked[:num_worst], *best[:NUM_PICTURES]]
    paths = _paths(runner.test_dataloader.dataset, picked)
    pictures = [_picture(image, paths[image], named) for image in picked]
    return render(
        {name: run.findings for name, run in named.items()},
        list(_head(runner, runs)),
        pictures[:num_worst],
        pictures[num_worst:],
    )


def _names(checkpoints: Sequence[str]) -> list[str]:
    """Short names that differ."""
    for parts in (1, 2):
        names = [
            '/'.join(Path(path).with_suffix('').parts[-parts:])
            for path in checkpoints
        ]
        if len(set(names)) == len(names):
            return names
    if len(set(checkpoints)) == len(checkpoints):
        return list(checkpoints)
    return [f'{path} ({i})' for i, path in enumerate(checkpoints, 1)]


def _head(runner: Runner, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Names and values of the table at the top."""
    findings, evaluated = runs[0].findings, runs[0].evaluated
    (annotations,) = [
        metric.ann_file
        for metric in runner.cfg.test_evaluator
        if metric.type == ReportCocoMetric.__name__
    ]
    yield 'Config', str(runner.cfg.filename)
    yield 'Checkpoint', runs[0].checkpoint
    if len(runs) > 1:
        yield 'Against', runs[1].checkpoint
    yield 'Annotations', str(annotations)
    num_objects = sum(x.num_objects for x in findings.classes)
    yield (
        'Data',
        f'{len(evaluated.evaluation.params.imgIds)} images, {num_objects} '
        f'objects, {len(findings.classes)} classes',
    )
    device = next(runner.model.parameters()).device
    threads = torch.get_num_threads()
    place = f'CPU, {threads} thread{"s" if threads > 1 else ""}'
    if device.type == 'cuda':
        place = torch.cuda.get_device_name(device)
    for label, run in zip(('Speed', 'Speed, against'), runs, strict=False):
        if run.seconds is not None:
            speed = f'{run.seconds:.4f} s per image, loading included'
            batch = runner.test_dataloader.batch_size
            yield label, f'{speed}; {place}, batch of {batch}'
    yield 'Date', f'{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}'
    yield (
        'Versions',
        f'mmdetr {__version__}, mmdet {mmdet.__version__}, '
        f'torch {torch.__version__}, hotcoco {metadata.version("hotcoco")}',
    )


def _paths(dataset: BaseDataset, images: Sequence[int]) -> dict[int, str]:
    """Files of images, by their ids."""
    missing, paths = set(images), {}
    for index in range(len(dataset)):
        if not missing:
            break
        info = dataset.get_data_info(index)
        if info['img_id'] in missing:
            paths[info['img_id']] = info['img_path']
            missing.remove(info['img_id'])
    return paths


def _picture(image: int, path: str, runs: Mapping[str, Run]) -> Picture:
    """Draw one image with its objects, and with each run's detections."""
    first = next(iter(runs.values()))
    truth = first.evaluated.truth
    places = _label_of(first.evaluated)
    objects = [
        annotation
        for annotation in truth.imgToAnns[image]
        if annotation['category_id'] in places
        and not annotation.get('iscrowd')
    ]
    panels: list[tuple[str, Boxes]] = [
        (
            'ground truth',
            Boxes(
                _corners([a['bbox'] for a in objects]),
                np.array([places[a['category_id']] for a in objects], int),
            ),
        )
    ]
    for name, run in runs.items():
        rows = run.evaluated.detections
        rows = rows[rows[:, 0] == image]
        rows = rows[rows[:, 5] >= run.findings.threshold]
        rows = rows[np.argsort(-rows[:, 5], kind='stable')]
        labels = np.array([places[int(i)] for i in rows[:, 6]], int)
        caption = name if len(runs) > 1 else 'detections'
        found = Detections(_corners(rows[:, 1:5]), labels, rows[:, 5])
        panels.append((caption, found))
    precision = first.findings.image_precisions[image]
    title = f'{Path(path).name}: AP {precision:.2f}, {len(objects)} objects'
    names = [x.name for x in first.findings.classes]
    return draw_picture(path, title, panels, names)


def _label_of(evaluated: Evaluated) -> dict[int, int]:
    """Index of each class, by its category id."""
    categories = evaluated.evaluation.params.catIds
    return {category: index for index, category in enumerate(categories)}


def _corners(boxes: Any) -> np.ndarray:
    """Convert (x, y, w, h) to (x1, y1, x2, y2)."""
    corners = np.array(boxes, float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners
