# Copyright (c) mmdetr authors. All rights reserved.
"""Names images that cannot be read, and lets a training skip some."""

import hashlib
import logging
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from torch.utils.data import Dataset, get_worker_info

from project.utils.errors import UserError
from project.utils.settings import Range, read_setting

_NUM_SLOTS = 128
"""Workers with counters of their own; further ones share these."""


def name_broken_images(dataset: Dataset, max_broken: int = 0) -> None:
    """Make a dataset report each image that it cannot read.

    In training up to ``max_broken`` of them are skipped and replaced by other
    images, as when a transform of mmdet returns None. Tests skip none.

    Args:
        dataset (Dataset): Its pipelines, and those of wrapped datasets, are
            changed in place.
        max_broken (int): Number of different images that the workers of a
            process may skip. Defaults to 0.
    """
    number = Range(0, meaning='the number of images a training may skip')
    kind = Annotated[int, number]
    tally = _Tally(read_setting(kind, max_broken, 'max_broken_images'))
    for leaf in _leaves(dataset):
        pipeline = getattr(leaf, 'pipeline', None)
        allowed = None if getattr(leaf, 'test_mode', False) else tally
        _replace_loaders(pipeline, allowed)


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside of wrappers."""
    wrapped = getattr(dataset, 'dataset', None)
    if hasattr(wrapped, '__getitem__'):  # some wrappers are no Dataset
        yield from _leaves(wrapped)
        return
    children = getattr(dataset, 'datasets', None)
    if isinstance(children, (list, tuple)):
        for child in children:
            yield from _leaves(child)
        return
    yield dataset


def _replace_loaders(pipeline: Any, tally: '_Tally | None') -> None:
    """Wrap each loader of a pipeline in a :class:`NamingLoader`."""
    transforms = getattr(pipeline, 'transforms', None)
    if not isinstance(transforms, list):
        return
    for index, transform in enumerate(transforms):
        if isinstance(transform, LoadImageFromFile):
            transforms[index] = NamingLoader(transform, tally)
        else:
            _replace_loaders(transform, tally)


class NamingLoader:
    """Loads an image, or raises an error that names it.

    Args:
        load (LoadImageFromFile): The wrapped transform.
        tally (_Tally | None): Counter of skipped images; None if none may be
            skipped.
    """

    def __init__(
        self, load: LoadImageFromFile, tally: '_Tally | None' = None
    ) -> None:
        self.load = load
        self.tally = tally

    def __call__(self, results: dict) -> dict | None:
        """Load an image.

        Returns:
            dict | None: With ``img``; None if the image is skipped.

        Raises:
            UserError: If it cannot be read and no more may be skipped.
        """
        try:
            return self.load(results)
        except Exception as error:
            path, reason = results.get('img_path'), reason_of(error)
            count = self.tally.add(str(path)) if self.tally else 0
            allowed = self.tally.limit if self.tally else 0
            if count > allowed or self.tally is None:
                others = f' after {allowed} others' if allowed else ''
                raise UserError(
                    f'The image {path} cannot be read{others}: {reason}. '
                    + self._remedy(allowed)
                ) from error
        print_log(
            f'Skipped the image {path}, which cannot be read: {reason} '
            f'({count} of at most {allowed}).',
            'current',
            logging.WARNING,
        )
        return None

    def _remedy(self, allowed: int) -> str:
        if self.tally is None:
            return 'Put it there or take it out of the annotations.'
        return (
            'Put it there, take it out of the annotations, or let the '
            'training skip more with max_broken_images in the config (it is '
            f'{allowed}).'
        )

    def __repr__(self) -> str:
        return repr(self.load)


def reason_of(error: Exception) -> str:
    """Reason of an error in one line, without the path and a full stop."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if 'buf.empty()' in str(error):
        return 'the file is empty'
    if str(error).startswith('failed to load image'):
        return 'it is damaged, or no image'
    text = ' '.join(str(error).split()).rstrip('.')
    return text or type(error).__name__


class _Tally:
    """Counts different images over all workers, present and past.

    Each worker writes hashes of the paths to its own row of shared memory,
    so there are no races.

    Args:
        limit (int): How many may be skipped.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rows = torch.zeros(_NUM_SLOTS, limit + 1, dtype=torch.int64)
        if limit:
            self._rows.share_memory_()

    def add(self, path: str) -> int:
        """Count an image, and return how many different ones there are."""
        worker = get_worker_info()
        row = self._rows[(worker.id if worker else 0) % _NUM_SLOTS]
        digest = hashlib.sha256(path.encode('utf-8', 'surrogateescape'))
        # Above 0, which marks a free slot.
        value = int.from_bytes(digest.digest()[:7], 'big') + 1
        known = self._rows[self._rows > 0]
        if not (known == value).any():
            free = torch.nonzero(row == 0)
            if len(free):
                row[free[0]] = value
        return len(torch.unique(self._rows[self._rows > 0]))
