# Copyright (c) mmdetr authors. All rights reserved.
"""Detects objects in the images of a job and writes the results."""

import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from project.apis.bulk.job import PICTURES, Job
from project.apis.bulk.reading import (
    Frames,
    Images,
    Read,
    in_batches,
    read_image,
    workers_for,
)
from project.apis.bulk.sources import Item, is_live
from project.apis.detections import Detections
from project.apis.detectors import DEFAULT_SCORE_THR, Detector
from project.checkpoints.writing import UNFINISHED, written_beside
from project.datasets.yolo import IMAGE_ENDINGS
from project.utils.errors import UserError

_DRAWERS = 2  # threads
_MANY = 1000  # frames, of which a video does not tell how many it has


@dataclass(frozen=True)
class Options:
    """Options of a detection.

    Attributes:
        score_thr: The lowest score that is kept.
        labels: Indices of the classes that are kept; None for all.
        batch_size: Images per forward pass.
        num_workers: Processes that read; None chooses their number.
        draw: Whether to draw pictures and videos.
    """

    score_thr: float = DEFAULT_SCORE_THR
    labels: Sequence[int] | None = None
    batch_size: int = 1
    num_workers: int | None = None
    draw: bool = True


def results_of(
    detector: Detector, batches: Iterable[list[Read]], options: Options
) -> Iterator[tuple[Read, Detections | None]]:
    """Detect objects in batches of images.

    Args:
        detector: The detector.
        batches: Batches of images.
        options: The options.

    Yields:
        Each image and its detections, which are None if it could not be read.
    """
    for batch in batches:
        whole = [read.data for read in batch if read.data is not None]
        samples = iter(detector.detect(whole) if whole else ())
        for read in batch:
            if read.data is None:
                tqdm.write(f'Skipped: {read.error}', file=sys.stderr)
                yield read, None
                continue
            sample = next(samples)
            found = Detections.of(
                sample.pred_instances,
                detector.classes,
                size=sample.ori_shape[1::-1],
                source=read.item.path if read.frame is None else read.frame,
            )
            yield read, found.above(options.score_thr, options.labels)


def line_of(read: Read, found: Detections | None) -> dict[str, Any]:
    """Format the results of an image as a line of a shard.

    Args:
        read: The image.
        found: The detections; None if it could not be read.
    """
    line: dict[str, Any] = dict(
        image=read.item.name, path=read.item.path, source=read.item.source
    )
    if read.frame is not None:
        line['frame'] = read.index
    if found is None:
        return dict(line, error=read.error)
    return dict(line, **found.to_dict())


def detect_portions(
    detector: Detector,
    job: Job,
    portions: Sequence[int],
    options: Options,
    title: str | None = None,
) -> None:
    """Detect objects in some portions of a job.

    Args:
        detector: The detector.
        job: The job.
        portions: The unfinished portions.
        options: The options.
        title: Title of a progress bar; None for no bar.
    """
    images = [portion for portion in portions if job.video(portion) is None]
    total = sum(len(job.images_of(portion)) for portion in images) or None
    with tqdm(
        total=total, desc=title, unit=' images', disable=title is None or None
    ) as bar:
        _detect_images(detector, job, images, options, bar)
        for portion in portions:
            if item := job.video(portion):
                _detect_video(detector, job, portion, item, options, bar)


def _detect_images(
    detector: Detector,
    job: Job,
    portions: Sequence[int],
    options: Options,
    bar: tqdm,
) -> None:
    """Detect in portions of images, with the same workers."""
    if not portions:
        return
    indices = np.concatenate([np.array(job.images_of(x)) for x in portions])
    reads = in_batches(
        Images(job, detector.prepare),
        options.batch_size,
        workers_for(len(indices), options.num_workers),
        indices,
    )
    results = results_of(detector, reads, options)
    with ThreadPoolExecutor(_DRAWERS) as pool:
        for portion, group in groupby(
            results, lambda result: job.portion_of(result[0].index)
        ):
            with _open_shard(job, portion) as file:
                drawn = []
                for read, found in group:
                    _write_line(file, read, found)
                    if options.draw and found is not None:
                        drawn.append(pool.submit(_draw, job, read.item, found))
                    bar.update()
                for picture in drawn:
                    picture.result()


def _detect_video(
    detector: Detector,
    job: Job,
    portion: int,
    item: Item,
    options: Options,
    bar: tqdm,
) -> None:
    """Detect in the frames of a video, or of a stream until Ctrl-C."""
    wanted = 0 if is_live(item.path) else options.num_workers
    num_workers = min(1, workers_for(_MANY, wanted))
    frames = Frames(item, detector.prepare)
    reads = in_batches(frames, options.batch_size, num_workers)
    with _open_shard(job, portion) as file, _Video(job, item) as video:
        try:
            for read, found in results_of(detector, reads, options):
                _write_line(file, read, found)
                if options.draw and found is not None:
                    video.add(found, read.fps)
                bar.update()
        except KeyboardInterrupt:
            if not is_live(item.path):
                raise


@contextmanager
def _open_shard(job: Job, portion: int) -> Iterator[TextIO]:
    """Write the results of a portion atomically."""
    path = job.shard(portion)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process of an earlier attempt may be at the same portion still.
    mark = f'.{socket.gethostname()}.{os.getpid()}'
    with (
        written_beside(str(path), mark) as unfinished,
        open(unfinished, 'w', encoding='utf-8') as file,
    ):
        yield file


def _write_line(file: TextIO, read: Read, found: Detections | None) -> None:
    file.write(f'{json.dumps(line_of(read, found))}\n')


def picture_path(job: Job, name: str) -> Path:
    """Path of the picture of an image, by its name in the job."""
    is_known = name.lower().endswith(IMAGE_ENDINGS)
    return job.folder / PICTURES / (name if is_known else f'{name}.jpg')


def _draw(job: Job, item: Item, found: Detections) -> None:
    """Draw a picture."""
    path = picture_path(job, item.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.plot().save(path)


class _Video:
    """Writes an annotated video, which appears when it is complete.

    Args:
        job: The job.
        item: The video.
    """

    def __init__(self, job: Job, item: Item) -> None:
        is_mp4 = item.name.lower().endswith('.mp4')
        name = item.name if is_mp4 else f'{item.name}.mp4'
        self.path = job.folder / PICTURES / name
        # OpenCV takes the format from the ending.
        unfinished = f'.{self.path.name}{UNFINISHED}.mp4'
        self._unfinished = self.path.with_name(unfinished)
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> '_Video':
        return self

    def add(self, found: Detections, fps: float) -> None:
        """Add a frame."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(
                str(self._unfinished), codec, fps, found.size
            )
            if not self._writer.isOpened():
                raise UserError(
                    f'{self.path} cannot be written: OpenCV has no encoder '
                    'for mp4 here; leave pictures out of --write.'
                )
        self._writer.write(np.asarray(found.plot())[..., ::-1])

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if self._writer is not None:
            self._writer.release()
            if kind is None:
                self._unfinished.replace(self.path)
            else:
                self._unfinished.unlink(missing_ok=True)


def numbers_of_paths(
    detector: Detector, paths: Iterable[str], options: Options
) -> Iterator[tuple[str, bool]]:
    """Detect objects in a stream of image paths.

    Args:
        detector: The detector.
        paths: Paths or URLs; empty ones are skipped.
        options: The options.

    Yields:
        tuple[str, bool]: A line of JSON for each, and whether it could be
        read.
    """
    items = (Item(0, path, path) for path in paths if path)
    numbered = enumerate(items)
    while batch := list(islice(numbered, options.batch_size)):
        reads = [
            read_image(x, number, detector.prepare) for number, x in batch
        ]
        for read, found in results_of(detector, [reads], options):
            line = line_of(read, found)
            for key in ('path', 'source'):
                del line[key]
            yield json.dumps(line), found is not None
