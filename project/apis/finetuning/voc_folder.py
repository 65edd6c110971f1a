# Copyright (c) mmdetr authors. All rights reserved.
"""Finds the splits of a Pascal VOC dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from project.utils.errors import UserError

_ROOTS = ('.', 'VOC*', 'VOCdevkit/*')

VocSplits = dict[str, tuple[list[Path], Path]]


def voc_splits(root: Path, names: Mapping[str, Sequence[str]]) -> VocSplits:
    """Find the annotation files and the image folder of each split.

    Args:
        root: Folder of the dataset: ``Annotations/``, ``JPEGImages/`` and
            lists in ``ImageSets/Main/`` in it or one year's folder of it, or
            a folder per split with images and XML files.
        names: Names of each split.

    Returns:
        Files and folder by split; without lists all files are ``train``.
        Empty if there is no such dataset.

    Raises:
        UserError: If it has several years, or lists files that do not exist.
    """
    years = [
        folder
        for pattern in _ROOTS
        for folder in sorted(root.glob(pattern) if pattern != '.' else [root])
        if any((folder / 'Annotations').glob('*.xml'))
    ]
    if len(years) > 1:
        found = ', '.join(str(year.relative_to(root)) for year in years)
        raise UserError(
            f'{root} holds several Pascal VOC datasets ({found}); name one '
            'of them.'
        )
    if years:
        return _of_lists(years[0], names)
    return {
        split: (sorted(folder.glob('*.xml')), folder)
        for split, others in names.items()
        for folder in (root / name for name in others)
        if any(folder.glob('*.xml'))
    }


def _of_lists(root: Path, names: Mapping[str, Sequence[str]]) -> VocSplits:
    """Read the lists of a dataset."""
    annotations, images = root / 'Annotations', root / 'JPEGImages'
    if not images.is_dir():
        raise UserError(f'{root} has Annotations/ but no JPEGImages/.')
    splits: VocSplits = {}
    for split, others in names.items():
        for name in others:
            file = root / 'ImageSets' / 'Main' / f'{name}.txt'
            if file.is_file():
                splits[split] = (_listed(file, annotations), images)
                break
    trainval = root / 'ImageSets' / 'Main' / 'trainval.txt'
    if 'train' not in splits and trainval.is_file():
        splits['train'] = (_listed(trainval, annotations), images)
    if not splits:
        splits['train'] = (sorted(annotations.glob('*.xml')), images)
    return splits


def _listed(file: Path, annotations: Path) -> list[Path]:
    """Files of the images in a list."""
    lines = file.read_text(encoding='utf-8').split('\n')
    ids = [line.split()[0] for line in lines if line.strip()]
    paths = [annotations / f'{name}.xml' for name in ids]
    if not paths:
        raise UserError(f'The list of images {file} is empty.')
    for path in paths:
        if not path.is_file():
            raise UserError(
                f'{path}, whose image {file} lists, does not exist.'
            )
    return paths
