# Copyright (c) mmdetr authors. All rights reserved.
"""Time COCO's metric as mmdet and as this package compute it.

Both run in turn on the same random detections, half of them near objects.
Printed are CPU seconds of this process, which hold on a busy machine better
than those of the clock, and whether all numbers agree.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from _arguments import count, positive_int

CLASSES = [f'class {index}' for index in range(80)]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=positive_int, default=5000)
    parser.add_argument('--detections', type=positive_int, default=100)
    parser.add_argument('--objects', type=positive_int, default=7)
    parser.add_argument('--repeats', type=positive_int, default=1)
    parser.add_argument('--seed', type=count, default=0)
    return parser.parse_args()


def write_annotations(path: Path, boxes: list, labels: list) -> None:
    """Write objects of images of 640x480 pixels as COCO has them."""
    annotations = [
        dict(
            id=image * 1000 + index + 1,
            image_id=image + 1,
            category_id=int(label) + 1,
            bbox=box.tolist(),
            area=float(box[2] * box[3]),
            iscrowd=int(index == 9),
        )
        for image, of_image in enumerate(zip(boxes, labels, strict=True))
        for index, (box, label) in enumerate(zip(*of_image, strict=True))
    ]
    truth = dict(
        images=[
            dict(id=image + 1, width=640, height=480)
            for image in range(len(boxes))
        ],
        categories=[
            dict(id=index + 1, name=name) for index, name in enumerate(CLASSES)
        ],
        annotations=annotations,
    )
    path.write_text(json.dumps(truth))


def make_samples(args: argparse.Namespace, path: Path) -> list[dict]:
    """Write random annotations, and make detections of them."""
    import numpy as np
    import torch

    rng = np.random.default_rng(args.seed)

    def random(number: int) -> tuple:
        size = np.exp(rng.normal(4, 1, (number, 2))).clip(4, 400)
        boxes = np.concatenate([rng.random((number, 2)) * 300, size], 1)
        return boxes, rng.integers(0, len(CLASSES), number)

    truth, samples = [], []
    for image in range(args.images):
        boxes, labels = random(rng.poisson(args.objects))
        truth.append((boxes, labels))
        found, classes = random(args.detections)
        if len(boxes):
            near = np.arange(0, args.detections, 2)
            noise = np.exp(rng.normal(0, 0.15, (len(near), 4)))
            found[near] = boxes[near % len(boxes)] * noise
            classes[near] = labels[near % len(boxes)]
        found[:, 2:] += found[:, :2]
        predictions = dict(
            bboxes=torch.from_numpy(found).float(),
            scores=torch.from_numpy(rng.random(args.detections)).float(),
            labels=torch.from_numpy(classes),
        )
        samples.append(
            dict(
                img_id=image + 1,
                ori_shape=(480, 640),
                pred_instances=predictions,
            )
        )
    write_annotations(path, *map(list, zip(*truth, strict=True)))
    return samples


def evaluate(metric: Any, samples: list[dict]) -> tuple[float, dict]:
    """CPU seconds from detections to numbers, and the numbers."""
    metric.dataset_meta = dict(classes=CLASSES)
    metric.results.clear()
    metric.process({}, samples)
    start = process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        values = metric.compute_metrics(metric.results)
    return process_time() - start, values


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    from statistics import median

    from mmdet.evaluation import CocoMetric

    from project.evaluation import FastCocoMetric

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'truth.json'
        samples = make_samples(args, path)
        with contextlib.redirect_stdout(io.StringIO()):
            metrics = [
                kind(ann_file=str(path), classwise=True)
                for kind in (CocoMetric, FastCocoMetric)
            ]
        seconds: tuple[list, list] = ([], [])
        for _ in range(args.repeats):
            runs = [evaluate(metric, samples) for metric in metrics]
            for times, (time, _) in zip(seconds, runs, strict=True):
                times.append(time)
    (_, expected), (_, found) = runs
    slow, fast = map(median, seconds)
    same = sum(str(found[name]) == str(expected[name]) for name in expected)
    print(
        f'{args.images} images, {args.detections} detections each: '
        f'CocoMetric {slow:.2f} s, FastCocoMetric {fast:.2f} s, '
        f'ratio {slow / fast:.1f}; {same} of {len(expected)} numbers equal'
    )


if __name__ == '__main__':
    main()
