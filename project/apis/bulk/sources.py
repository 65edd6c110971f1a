# Copyright (c) mmdetr authors. All rights reserved.
"""Sources of images: files, folders, lists, cameras, streams."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from project.datasets.yolo import IMAGE_ENDINGS
from project.utils.errors import UserError, did_you_mean

VIDEO_ENDINGS = (
    '.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv',
)  # fmt: skip
LIST_ENDINGS = ('.txt', '.lst')


@dataclass(frozen=True)
class Item:
    """An image, a video, a camera or a stream.

    Attributes:
        source: Index of its source, from 0.
        path: Absolute path or URL; the number of a camera.
        name: Unique name in the results.
        is_video: Whether it has frames.
    """

    source: int
    path: str
    name: str
    is_video: bool = False


def find_items(sources: Sequence[str]) -> Iterator[Item]:
    """List the images and videos of sources in a fixed order.

    Args:
        sources: Each an image, a video, a folder (searched recursively), a
            pattern such as ``'a/*.jpg'``, a ``.txt`` file with a path per
            line, the number of a camera, or the URL of an image or a stream.

    Yields:
        Item: The images and videos, source by source.

    Raises:
        UserError: If a source does not exist or holds nothing.
    """
    labels = [''] if len(sources) == 1 else _labels(sources)
    pairs = zip(sources, labels, strict=True)
    for number, (source, label) in enumerate(pairs):
        count = 0
        for path, name in _paths(source):
            is_video = _is_video(path)
            if '://' not in path and not is_live(path):
                path = os.path.abspath(path)
            yield Item(number, path, f'{label}{name}', is_video)
            count += 1
        if not count:
            raise UserError(
                f'{source} holds no image and no video; expected files that '
                f'end in {", ".join(IMAGE_ENDINGS)}, or a video.'
            )


def check_sources(sources: Sequence[str]) -> None:
    """Raise if a source does not exist, before any work.

    Args:
        sources: As in :func:`find_items`.

    Raises:
        UserError: If a source does not exist or holds nothing.
    """
    for source in sources:
        next(find_items([source]))


def is_live(path: str) -> bool:
    """Return whether it is a camera or a stream, which may never end."""
    return path.isdecimal() or (
        '://' in path and not _ends(path, (*IMAGE_ENDINGS, *VIDEO_ENDINGS))
    )


def _paths(source: str) -> Iterator[tuple[str, str]]:
    """Yield the files of one source with unique names."""
    if os.path.isdir(source):
        for path in _walk(source):
            yield path, os.path.relpath(path, source)
    elif os.path.isfile(source):
        if _ends(source, LIST_ENDINGS):
            yield from _named(_lines(source))
        else:
            yield source, os.path.basename(source)
    elif source.isdecimal():
        yield source, f'camera_{source}'
    elif '://' in source:
        name = source.partition('://')[2].rstrip('/').rpartition('/')[2]
        yield source, name.partition('?')[0] or 'stream'
    elif glob.has_magic(source):
        found = sorted(glob.iglob(source, recursive=True))
        if not found:
            raise UserError(f'{source} matches no file.')
        yield from _named([x for x in found if _is_known(x)])
    else:
        folder = Path(source).parent
        there = os.listdir(folder) if folder.is_dir() else []
        hint = did_you_mean(os.path.basename(source), there)
        raise UserError(f'The source {source} does not exist{hint}')


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the images and videos below a folder, sorted.

    A link to a folder that it lies in is left out, as it never ends.
    """
    above = (*above, os.path.realpath(folder))
    with _readable('folder', folder), os.scandir(folder) as entries:
        found = sorted((x.name, x.is_dir(), x.is_symlink()) for x in entries)
    for name, is_folder, is_link in found:
        path = os.path.join(folder, name)
        if not is_folder:
            if _is_known(path):
                yield path
        elif not is_link or os.path.realpath(path) not in above:
            yield from _walk(path, above)


def _lines(path: str) -> list[str]:
    """Read a file with a path per line, without repetitions."""
    with (
        _readable('list', path),
        open(path, encoding='utf-8', errors='surrogateescape') as file,
    ):
        lines = (line.strip() for line in file)
        return list(dict.fromkeys(line for line in lines if line))


@contextmanager
def _readable(kind: str, path: str) -> Iterator[None]:
    """Name the source that the system does not let us read."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'The {kind} {path} cannot be read: {error.strerror}.'
        ) from error


def _named(paths: list[str]) -> Iterator[tuple[str, str]]:
    """Name files by their paths below the common folder."""
    full = [x if '://' in x else os.path.abspath(x) for x in paths]
    local = [os.path.dirname(x) for x in full if '://' not in x]
    common = os.path.commonpath(local) if local else ''
    for path, whole in zip(paths, full, strict=True):
        if '://' in whole:
            yield path, whole.partition('://')[2].replace('..', '_')
        else:
            yield path, os.path.relpath(whole, common)


def _labels(sources: Sequence[str]) -> list[str]:
    """Name the sources uniquely by the last part of their paths."""
    labels: list[str] = []
    for source in sources:
        base = os.path.basename(source.rstrip('/')) or 'source'
        if '://' in source:
            base = 'address'
        elif glob.has_magic(base):
            base = 'files'
        label, number = base, 2
        while f'{label}/' in labels:
            label, number = f'{base}_{number}', number + 1
        labels.append(f'{label}/')
    return labels


def _ends(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().partition('?')[0].endswith(endings)


def _is_known(path: str) -> bool:
    return _ends(path, (*IMAGE_ENDINGS, *VIDEO_ENDINGS))


def _is_video(path: str) -> bool:
    return is_live(path) or _ends(path, VIDEO_ENDINGS)
