# Copyright (c) mmdetr authors. All rights reserved.
"""Recognises the dataset in a folder and converts it to COCO's format."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from project.apis.finetuning.voc_folder import voc_splits
from project.datasets import voc, yolo
from project.datasets.coco_writing import split_annotations
from project.preflight.dataset_formats import is_yolo, recognised
from project.utils.errors import UserError

SPLITS = {
    'train': ('train', 'train2017', 'training'),
    'val': ('val', 'valid', 'validation', 'val2017'),
    'test': ('test', 'test2017'),
}
"""What folders and files of each split are called."""

_FILES = (
    'annotations/{}.json',
    'annotations/instances_{}.json',
    '{}/_annotations.coco.json',
    '{}/annotations.json',
    '{}.json',
)
_IMAGE_FOLDERS = ('{}', 'images/{}', '{}/images')
_VAL_SHARE = 0.2

Reader = Callable[[Path], dict]


@dataclass(frozen=True)
class Split:
    """COCO annotations and the folder of their images."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class DataFolder:
    """A dataset in COCO's format.

    Attributes:
        kind: Its original format, such as ``COCO``.
        splits: Splits by name: ``train``, ``val`` and perhaps ``test``.
        classes: Names of the classes.
        num_images: Number of training images.
        is_split: Whether validation images were taken from the training set.
    """

    kind: str
    splits: dict[str, Split]
    classes: tuple[str, ...]
    num_images: int
    is_split: bool


def read_folder(root: Path, out: Path, seed: int = 0) -> DataFolder:
    """Recognise a dataset, without writing into its folder.

    Args:
        root: Folder of a dataset: COCO's or Roboflow's layout, Pascal VOC or
            YOLO.
        out: Folder for annotations that are converted or split.
        seed: Which fifth of the training images becomes the validation set,
            where there is none.

    Raises:
        UserError: If nothing is recognised, or files are not in the format.
    """
    root, out = root.resolve(), out.resolve()
    if root.is_file():
        raise UserError(
            f'{root} is a file; expected the folder of the dataset, such as '
            f'{root.parent}.'
        )
    if not root.is_dir():
        raise UserError(f'The data folder {root} does not exist.')
    read = cache(_read_json)
    kind, splits = _recognise(root, out, read)
    if 'test' in splits and not _has_boxes(splits['test'], read):
        del splits['test']
    is_split = 'val' not in splits
    if is_split:
        train = splits['train']
        parts = [out / 'train_part.json', out / 'val_part.json']
        content = read(train.annotations)
        if len(content['images']) < 2:
            raise UserError(
                f'{root} has one image, {train.annotations} says; expected '
                'two at least, of which one is for validation.'
            )
        split_annotations(content, parts, _VAL_SHARE, seed)
        splits['train'] = Split(parts[0], train.images)
        splits['val'] = Split(parts[1], train.images)
    content = read(splits['train'].annotations)
    classes = _classes(content, splits['train'].annotations)
    count = len(content['images'])
    return DataFolder(kind, splits, classes, count, is_split)


def _recognise(
    root: Path, out: Path, read: Reader
) -> tuple[str, dict[str, Split]]:
    """Find the format of a dataset and its splits, converted into ``out``."""
    coco = partial(_coco, read=read)
    for kind, find in (('COCO', coco), ('YOLO', _yolo), ('VOC', _voc)):
        splits = find(root, out)
        if 'train' in splits:
            return kind, splits
    raise UserError(
        f'{root} holds no dataset that is recognised; expected COCO '
        '(annotations/train.json and train/, or train/'
        '_annotations.coco.json), Pascal VOC (Annotations/, JPEGImages/) '
        f'or YOLO (data.yaml, images/, labels/){recognised(str(root))}.'
    )


def _coco(root: Path, out: Path, read: Reader) -> dict[str, Split]:
    """Find COCO annotations."""
    found = {
        split: file
        for split, names in SPLITS.items()
        for name in reversed(names)
        for pattern in reversed(_FILES)
        if (file := root / pattern.format(name)).is_file()
    }
    if 'train' not in found:
        some = [file for file in _json_files(root) if _is_coco(file, read)]
        if found or len(some) != 1:
            return {}
        found = {'train': some[0]}
    splits = {}
    for split, file in found.items():
        folder = _image_folder(root, file, read(file))
        splits[split] = Split(file, folder)
    return splits


def _has_boxes(split: Split, read: Reader) -> bool:
    return bool(read(split.annotations)['annotations'])


def _json_files(root: Path) -> Iterator[Path]:
    for pattern in ('*.json', 'annotations/*.json', '*/_annotations.*.json'):
        yield from sorted(root.glob(pattern))


def _is_coco(file: Path, read: Reader) -> bool:
    try:
        read(file)
    except UserError:
        return False
    return True


def _read_json(file: Path) -> dict:
    """Read COCO annotations; their contents are checked later."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'The annotations {file} cannot be read as JSON: {error}.'
        ) from error
    keys = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key, []), list) for key in keys
    ):
        content = {}
    missing = [key for key in keys[::2] if key not in content]
    if missing:
        raise UserError(
            f'The annotations {file} have no list of {" and ".join(missing)}; '
            'expected images, annotations and categories as in COCO.'
        )
    content.setdefault('annotations', [])
    return content


def _image_folder(root: Path, file: Path, content: dict) -> Path:
    """Find the folder with the first image of an annotation file."""
    names = [name for group in SPLITS.values() for name in group]
    own = file.stem.removeprefix('instances_')
    folders = [file.parent] if file.parent != root / 'annotations' else []
    for name in (own, *names):
        folders += [root / place.format(name) for place in _IMAGE_FOLDERS]
    folders += [root / 'images', root / 'JPEGImages', root]
    if not content['images']:
        raise UserError(f'The annotations {file} list no images.')
    first = content['images'][0]
    first = str(first.get('file_name') if isinstance(first, dict) else first)
    for folder in folders:
        if (folder / first).is_file():
            return folder
    raise UserError(
        f'The image {first}, which {file} lists, is in none of the folders '
        f'of {root}; expected it in {folders[0]}.'
    )


def _yolo(root: Path, out: Path) -> dict[str, Split]:
    """Convert a YOLO dataset."""
    if not is_yolo(root):
        return {}
    found = {split: yolo.find_images(root, x) for split, x in SPLITS.items()}
    if not any(found.values()) and (root / 'images').is_dir():
        found['train'] = yolo.find_images(root, [''])
    if found['train'] is None:
        raise UserError(
            f'The YOLO dataset {root} has no training images; expected '
            'images/train/ or train/images/, or train: FOLDER in data.yaml.'
        )
    named = yolo.named_images(root, SPLITS['val'])
    if named and found['val'] is None:
        raise UserError(
            f'{root}: data.yaml names {named[0]} as val, which does not '
            'exist; correct the line, or remove it to have a fifth of the '
            'training images taken for validation.'
        )
    splits = {}
    for split, images in found.items():
        if images is not None:
            file = out / f'{split}.json'
            file.unlink(missing_ok=True)
            yolo.convert(root, images, file)
            splits[split] = Split(file, images.folder)
    return splits


def _voc(root: Path, out: Path) -> dict[str, Split]:
    """Convert a Pascal VOC dataset."""
    found = voc_splits(root, SPLITS)
    names = voc.read_names(f for files, _ in found.values() for f in files)
    splits = {}
    for split, (files, images) in found.items():
        splits[split] = Split(out / f'{split}.json', images)
        voc.convert(files, images, names, splits[split].annotations)
    return splits


def _classes(content: dict, file: Path) -> tuple[str, ...]:
    """Names of the categories, in order.

    Roboflow's supercategory, the first of its categories and without a box,
    is left out.
    """
    categories = content['categories']
    parents = {category.get('supercategory') for category in categories}
    used = {box.get('category_id') for box in content['annotations']}
    names = tuple(
        str(category.get('name'))
        for category in categories
        if category.get('id') in used
        or category.get('name') not in parents
        or category.get('name') == category.get('supercategory')
    )
    if not names:
        raise UserError(f'The annotations {file} have no categories.')
    return names
