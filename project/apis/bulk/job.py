# Copyright (c) mmdetr authors. All rights reserved.
"""The results folder of a detection in many images, which can be resumed.

The images are divided into portions. The results of a portion are one file
that is written atomically, so a resumed job, with any number of processes,
only computes the missing portions.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from project.apis.bulk.sources import Item
from project.checkpoints.writing import (
    UNFINISHED,
    write_text,
    written_beside,
)
from project.utils.errors import UserError

PICTURES = 'pictures'
_JOB, _IMAGES, _SHARDS = 'job.json', 'images.jsonl', 'shards'
_TABLES = ('detections.json', 'detections.csv', 'detections.parquet')
# So that a process does not wait for the last portion of another.
_PORTIONS_OF_PROCESS = 8


class Job:
    """A folder of results.

    Args:
        folder: A folder prepared by :func:`begin_job`.

    Attributes:
        folder (Path): The folder.
        num_images (int): Number of images, without videos.
        num_portions (int): Number of portions, including one per video.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        content = json.loads((self.folder / _JOB).read_text())
        self.description: dict[str, Any] = content['description']
        self._size = content['size']
        self._videos = [Item(**video) for video in content['videos']]
        self._starts = _line_starts(self.folder / _IMAGES)
        self.num_images = len(self._starts)
        self._num_image_portions = -(-self.num_images // self._size)
        self.num_portions = self._num_image_portions + len(self._videos)

    def image(self, index: int) -> Item:
        """Find an image by its index."""
        with (self.folder / _IMAGES).open('rb') as file:
            file.seek(self._starts[index])
            return Item(**json.loads(file.readline()))

    def images_of(self, portion: int) -> range:
        """Indices of the images of a portion; none for a video."""
        start = portion * self._size
        return range(start, min(start + self._size, self.num_images))

    def portion_of(self, index: int) -> int:
        """The portion of an image."""
        return index // self._size

    def video(self, portion: int) -> Item | None:
        """The video of a portion; None if it is one of images."""
        number = portion - self._num_image_portions
        return self._videos[number] if number >= 0 else None

    def shard(self, portion: int) -> Path:
        """Path of the results of a portion."""
        # Folders of a million files are slow.
        thousand, rest = divmod(portion, 1000)
        return self.folder / _SHARDS / f'{thousand:04}' / f'{rest:03}.jsonl'

    def is_done(self, portion: int) -> bool:
        """Whether the results of a portion exist."""
        return self.shard(portion).exists()

    def missing(self, rank: int = 0, num_processes: int = 1) -> list[int]:
        """The unfinished portions of a process."""
        mine = range(rank, self.num_portions, num_processes)
        return [portion for portion in mine if not self.is_done(portion)]

    def num_done(self) -> int:
        """Count the images of the portions that are done."""
        done = (x for x in range(self.num_portions) if self.is_done(x))
        return sum(len(self.images_of(portion)) for portion in done)

    def results(self) -> Iterator[dict[str, Any]]:
        """Read all results in the order of the images."""
        for portion in range(self.num_portions):
            with self.shard(portion).open(encoding='utf-8') as file:
                yield from map(json.loads, file)


def begin_job(
    folder: str | os.PathLike,
    description: dict[str, Any],
    items: Iterable[Item],
    *,
    portion_size: int = 100,
    num_processes: int = 1,
    overwrite: bool = False,
) -> None:
    """Prepare the folder of a job, unless it is prepared already.

    Args:
        folder: Folder of the results, empty or of the same job.
        description: Settings that identify the job, for JSON.
        items: The images and videos; they are listed once, at the beginning.
        portion_size: Largest number of images in a portion.
        num_processes: Number of processes.
        overwrite: Whether to remove the results of another job.

    Raises:
        UserError: If the folder holds something else.
    """
    folder = Path(folder)
    if (folder / _JOB).is_file():
        if not overwrite:
            _check_same(folder, description)
            return
        clear(folder)
    elif folder.is_dir() and any(_foreign(folder)):
        raise UserError(
            f'{folder} holds files that are not of a detection, such as '
            f'{next(_foreign(folder))}; name another folder with --out.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    videos, count = [], 0
    with (
        written_beside(str(folder / _IMAGES)) as unfinished,
        open(unfinished, 'w', encoding='utf-8') as file,
    ):
        for item in items:
            if item.is_video:
                videos.append(asdict(item))
            else:
                file.write(f'{json.dumps(asdict(item))}\n')
                count += 1
    if num_processes > 1:
        share = -(-count // (num_processes * _PORTIONS_OF_PROCESS))
        portion_size = max(1, min(portion_size, share))
    content = dict(
        description=description,
        size=portion_size,
        videos=videos,
    )
    write_text(str(folder / _JOB), json.dumps(content, indent=1))


def clear(folder: Path) -> None:
    """Remove the results of a job, and nothing else."""
    (folder / _JOB).unlink()  # first, so that nobody goes on with the rest
    for name in (_SHARDS, PICTURES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (_IMAGES, *_TABLES):
        (folder / name).unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files of killed processes."""
    for path in folder.rglob(f'.*{UNFINISHED}*'):
        path.unlink(missing_ok=True)


def _check_same(folder: Path, description: dict[str, Any]) -> None:
    """Raise if a folder is of another job."""
    earlier = json.loads((folder / _JOB).read_text())['description']
    others = [
        key for key in description if earlier.get(key) != description[key]
    ]
    if others:
        told = ', '.join(
            f'{key} {earlier.get(key)!r} (now {description[key]!r})'
            for key in others
        )
        raise UserError(
            f'{folder} holds the detections of another command, which had '
            f'{told}; name another folder with --out, or give --overwrite to '
            'remove them.'
        )


def _foreign(folder: Path) -> Iterator[str]:
    """Yield names of files that no job writes, except locks."""
    for path in sorted(folder.iterdir()):
        if path.name != _IMAGES and not path.name.startswith('.'):
            yield path.name


def _line_starts(path: Path) -> np.ndarray:
    """Offsets of the lines of a file, 8 bytes each."""
    with path.open('rb') as file:
        lengths = np.fromiter(map(len, file), dtype=np.int64)
    return np.cumsum(lengths) - lengths
