# Copyright (c) mmdetr authors. All rights reserved.
"""Reads images and frames of videos in worker processes."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from project.apis.bulk.job import Job
from project.apis.bulk.sources import Item
from project.apis.preparation import Preparation
from project.utils.cores import num_cores
from project.utils.errors import UserError

DEFAULT_FPS = 25.0
_FEW = 16  # images that one process has read before others have started
_MAX_WORKERS = 4
# mmengine sets another for processes of a job, with which each worker would
# import everything anew.
_START = 'fork' if sys.platform == 'linux' else None


@dataclass
class Read:
    """An image, ready for the model.

    Attributes:
        item: The image, or the video that it is a frame of.
        index: Number of the image, or of the frame in its video.
        data: Input of the model; None if the image cannot be read.
        error: Why it cannot be read.
        frame: Pixels of a frame, has shape (h, w, 3), uint8, RGB.
        fps: Frames per second of a video.
    """

    item: Item
    index: int
    data: dict | None = None
    error: str = ''
    frame: np.ndarray | None = None
    fps: float = DEFAULT_FPS


class Images(Dataset):
    """The images of a job, by index.

    It holds no list of them, which every worker would copy.

    Args:
        job: The job.
        prepare: The test pipeline.
    """

    def __init__(self, job: Job, prepare: Preparation) -> None:
        self.job = job
        self.prepare = prepare

    def __len__(self) -> int:
        return self.job.num_images

    def __getitem__(self, index: int) -> Read:
        """Read an image; one that is broken tells why."""
        item = self.job.image(int(index))
        return read_image(item, int(index), self.prepare)


def read_image(item: Item, index: int, prepare: Preparation) -> Read:
    """Read an image; a broken one gives an ``error``.

    Args:
        item: The image.
        index: Its index.
        prepare: The test pipeline.
    """
    try:
        return Read(item, index, prepare(item.path))
    except UserError as error:
        return Read(item, index, error=str(error))


class Frames(IterableDataset):
    """The frames of a video, a camera or a stream.

    Args:
        item: The video, camera or stream.
        prepare: The test pipeline.
    """

    def __init__(self, item: Item, prepare: Preparation) -> None:
        self.item = item
        self.prepare = prepare

    def __iter__(self) -> Iterator[Read]:
        """Yield each frame; of a video that is broken, why it is."""
        path, index = self.item.path, 0
        capture = cv2.VideoCapture(int(path) if path.isdecimal() else path)
        try:
            fps = capture.get(cv2.CAP_PROP_FPS)
            fps = fps if 0 < fps < 1000 else DEFAULT_FPS
            while True:
                is_there, frame = capture.read()
                if not is_there:
                    break
                frame = np.ascontiguousarray(frame[..., ::-1])
                data = self.prepare(frame)
                yield Read(self.item, index, data, frame=frame, fps=fps)
                index += 1
        finally:
            capture.release()
        if not index:
            kind = 'camera' if path.isdecimal() else 'video'
            error = f'The {kind} {path} cannot be read: it gives no frame.'
            yield Read(self.item, 0, error=error)


def workers_for(num_images: int, wanted: int | None = None) -> int:
    """Choose the number of reading processes per detecting one.

    Args:
        num_images: Number of images to read.
        wanted: The user's choice, if any.
    """
    if wanted is None:
        num_processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
        few = num_images < _FEW
        share = num_cores() // num_processes - 1
        wanted = 0 if few else max(1, min(_MAX_WORKERS, share))
    return min(wanted, num_images)


def in_batches(
    dataset: Dataset | IterableDataset,
    batch_size: int,
    num_workers: int,
    indices: np.ndarray | None = None,
) -> Iterable[list[Read]]:
    """Read in worker processes, in order.

    Args:
        dataset: The images or frames.
        batch_size: Images per batch.
        num_workers: Number of worker processes; 0 reads in this one.
        indices: Indices of the images to read. By default all.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=indices,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_one_thread,
        multiprocessing_context=_START if num_workers else None,
    )


def _one_thread(worker: Any) -> None:
    """Use one thread per worker."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
