# Copyright (c) mmdetr authors. All rights reserved.
"""A detection in many images, from the sources to the tables."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.apis.bulk.distributed import Processes
from project.apis.bulk.exports import open_exports
from project.apis.bulk.job import Job, begin_job, remove_unfinished
from project.apis.bulk.run import Options, detect_portions
from project.apis.bulk.sources import find_items
from project.apis.detectors import Detector
from project.engine.runner.work_dir import WorkDirLock
from project.utils.errors import UserError, did_you_mean

_PATIENCE = 1.0  # seconds between looks at what the others have done
_REMEDY = 'name another folder with --out, or end that detection first'


@dataclass(frozen=True)
class Request:
    """What to detect in, and what to write.

    Attributes:
        sources: The images and videos, see :func:`find_items`.
        out: Folder of the results.
        formats: Formats to write: ``pictures`` and names of ``EXPORTS``.
        description: Settings that identify the detection in its folder.
        portion_size: Largest number of images in a portion.
        overwrite: Whether to remove the results of another detection.
    """

    sources: Sequence[str]
    out: str
    formats: Sequence[str]
    description: dict[str, Any]
    portion_size: int = 100
    overwrite: bool = False


@dataclass
class Summary:
    """Results of a job in numbers.

    Attributes:
        images: Number of images or frames read from each source.
        detections: Number of detections in each source.
        broken: Number of unreadable images of each source.
        files: The written files.
    """

    images: list[int]
    detections: list[int]
    broken: list[list[str]]
    files: list[Path] = field(default_factory=list)


def finish(
    job: Job,
    formats: Sequence[str],
    classes: Sequence[str],
    num_sources: int,
) -> Summary:
    """Write the tables of a job when all of its portions are done.

    Args:
        job: The job; other processes may still work on it.
        formats: Names of ``EXPORTS``.
        classes: Names of all classes.
        num_sources: Number of sources.

    Returns:
        Summary: The results in numbers.
    """
    missing = job.missing()
    while missing := [x for x in missing if not job.is_done(x)]:
        time.sleep(_PATIENCE)
    zeros = [0] * num_sources
    summary = Summary(list(zeros), list(zeros), [[] for _ in zeros])
    with open_exports(job.folder, formats, classes) as (adds, paths):
        for result in job.results():
            source = result['source']
            if 'error' in result:
                summary.broken[source].append(result['path'])
            else:
                summary.images[source] += 1
                summary.detections[source] += len(result['scores'])
            for add in adds:
                add(result)
    summary.files = paths
    return summary


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Find the indices of classes.

    Args:
        names: Class names.
        classes: Names of all classes of the detector.

    Returns:
        list[int]: Their indices.

    Raises:
        UserError: If there is no such class; suggests similar names.
    """
    for name in names:
        if name not in classes:
            raise UserError(
                f'The detector knows no class {name!r}'
                f'{did_you_mean(name, classes)}'
            )
    return [list(classes).index(name) for name in names]


def detect_job(
    detector: Detector,
    request: Request,
    options: Options,
    processes: Processes,
) -> Summary | None:
    """Detect objects in all sources, or resume such a detection.

    Args:
        detector: The detector.
        request: What to detect in, and what to write.
        options: The options.
        processes: The processes that share the work.

    Returns:
        Summary | None: The results in numbers, in the first process only.

    Raises:
        UserError: If a source is missing or the folder holds other files.
    """
    lock = WorkDirLock(request.out, 'detection', _REMEDY)

    def begin() -> None:
        lock.acquire()
        begin_job(
            request.out,
            request.description,
            find_items(request.sources),
            portion_size=request.portion_size,
            num_processes=processes.number,
            overwrite=request.overwrite,
        )
        remove_unfinished(Path(request.out))

    try:
        processes.first(begin)
        job = Job(request.out)
        _detect_share(detector, job, options, processes)
        if processes.rank:
            return None
        num_sources = len(request.sources)
        return finish(job, request.formats, detector.classes, num_sources)
    finally:
        lock.release()


def _detect_share(
    detector: Detector, job: Job, options: Options, processes: Processes
) -> None:
    """Detect in the unfinished portions of a process."""
    portions = job.missing(processes.rank, processes.number)
    if processes.rank:
        detect_portions(detector, job, portions, options)
        return
    if num_done := job.num_done():
        print(
            f'{num_done} of {job.num_images} images were done already.',
            file=sys.stderr,
        )
    title = 'Detecting'
    if processes.number > 1:
        title += f' (process 1 of {processes.number})'
    detect_portions(detector, job, portions, options, title)
