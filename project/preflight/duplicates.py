# Copyright (c) mmdetr authors. All rights reserved.
"""Finds images that are in two splits."""

import hashlib
import os.path as osp
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from project.preflight.dataset_report import DatasetReport

_BUDGET = 60.0  # seconds for reading files of equal size


@dataclass
class Duplicates:
    """Images that are in two splits.

    Attributes:
        splits (tuple[str, str]): Names of the splits.
        by_name (list[str]): File names that occur in both.
        by_content (list[tuple[str, str]]): Pairs of files with the same
            content.
        is_complete (bool): Whether all files were read in time.
    """

    splits: tuple[str, str]
    by_name: list[str]
    by_content: list[tuple[str, str]]
    is_complete: bool = True

    def told(self) -> str:
        """Describe them in a line."""
        first, second = self.splits
        text = (
            f'{first} and {second}: {len(self.by_content):,} images with the '
            f'same content, {len(self.by_name):,} file names in common'
        )
        if self.by_content:
            text += f', such as {" and ".join(self.by_content[0])}'
        elif self.by_name:
            text += f', such as {self.by_name[0]}'
        if not self.is_complete:
            text += ' (not all files were read in time)'
        return text


def find_duplicates(
    first: Iterable[DatasetReport], second: Iterable[DatasetReport]
) -> Duplicates | None:
    """Compare the images of two splits.

    Returns:
        Duplicates | None: Shared images; None if those of a split are
        unknown.
    """
    first = [report for report in first if report.images is not None]
    second = [report for report in second if report.images is not None]
    if not first or not second:
        return None
    names = {name for report in first for name in report.names}
    by_name = [n for report in second for n in report.names if n in names]
    pairs, is_complete = _same_content(_by_size(first), _by_size(second))
    splits = (first[0].split, second[0].split)
    return Duplicates(splits, by_name, pairs, is_complete)


def _by_size(reports: Iterable[DatasetReport]) -> dict[int, list[str]]:
    """Group files by their number of bytes."""
    groups = defaultdict(list)
    for images in (report.images for report in reports):
        if images is None:
            continue
        sizes = images.stamps[:, 0].tolist()
        for path, size in zip(images.paths, sizes, strict=True):
            if size > 0:
                groups[size].append(path)
    return groups


def _same_content(
    first: dict[int, list[str]], second: dict[int, list[str]]
) -> tuple[list[tuple[str, str]], bool]:
    """Pair files of equal content; return whether all were compared."""
    deadline = time.monotonic() + _BUDGET
    pairs: list[tuple[str, str]] = []
    for size in first.keys() & second.keys():
        if time.monotonic() > deadline:
            return sorted(pairs), False
        known = {_digest(path): path for path in first[size]}
        pairs += [
            (known[digest], path)
            for path in second[size]
            if (digest := _digest(path)) in known
        ]
    return sorted(pairs), True


def _digest(path: str) -> str:
    """Hash a file, or return its path if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while part := file.read(2**20):
                digest.update(part)
        return digest.hexdigest()
    except OSError:
        return osp.abspath(path)
