# Copyright (c) mmdetr authors. All rights reserved.
"""Mistakes in a config and its data, found before anything is built."""

import inspect
import json
import math
import os.path as osp
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import MultiBranch
from mmdet.models.data_preprocessors import (
    DetDataPreprocessor,
    MultiBranchDataPreprocessor,
)
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry

from project.engine.runner.resolve import (
    SPLITS,
    evaluators,
    leaf_datasets,
    leaf_pipelines,
    model_configs,
    nested_dicts,
)
from project.utils.errors import UserError

_NUM_NAMES_SHOWN = 5
_ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')


def check_model(cfg: Config) -> None:
    """Compare the numbers of the model with each other and with the data.

    Args:
        cfg (Config): A config after ``resolve_config``.

    Raises:
        UserError: If the model counts other classes than a dataset, or is
            asked for more detections than it has queries times classes.
    """
    for split in SPLITS:
        for name, dataset in leaf_datasets(cfg, split):
            _check_num_classes(cfg, name, dataset)
    _check_num_detections(cfg)


def _check_num_classes(cfg: Config, name: str, dataset: ConfigDict) -> None:
    """Raise if a part of the model counts other classes than ``dataset``."""
    classes = _dataset_classes(dataset)
    if classes is None:
        return
    for part in model_configs(cfg):
        num_classes = part.get('num_classes', len(classes))
        if num_classes != len(classes):
            raise UserError(
                f'{part.get("type", "The model")} has num_classes='
                f'{num_classes}, but {name} has {len(classes)} classes; set '
                'classes=(...) in the config and both follow.'
            )


def _check_num_detections(cfg: Config) -> None:
    """Raise if more detections are asked for than there are scores."""
    model = cfg.model
    while 'module' in model:  # test-time augmentation wraps the model
        model = model.module
    max_per_img = (model.get('test_cfg') or {}).get('max_per_img')
    num_queries = model.get('num_queries')
    if num_queries is not None:  # which may have several patterns each
        num_queries *= max(model.get('num_patterns') or 1, 1)
    num_classes = (model.get('bbox_head') or {}).get('num_classes')
    if None in (max_per_img, num_queries, num_classes):
        return
    if max_per_img > num_queries * num_classes:
        raise UserError(
            f'model.test_cfg.max_per_img={max_per_img} asks for more '
            f'detections than {num_queries} queries times {num_classes} '
            f'classes can give; set it to {num_queries * num_classes} or less.'
        )


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Look for what the dataloaders and evaluators are going to read.

    Files on remote storage are not looked for.

    Args:
        cfg (Config): A config after ``resolve_config``.
        splits (Sequence[str]): Which of ``train``, ``val`` and ``test`` are
            going to be used.

    Raises:
        UserError: If a root, annotation file or image folder is missing, an
            annotation file does not fit its dataset or lacks masks that are
            loaded, or the model does not take the branches of its images.
    """
    if 'train' in splits:
        _check_branches(cfg)
    read: dict[str, AnnotationFile] = {}
    for split in splits:
        for name, dataset, transforms in leaf_pipelines(cfg, split):
            if not _is_remote(dataset):
                _check_dataset(name, dataset, transforms, split, read)
        for name, metric in evaluators(cfg, split):
            path = metric.get('ann_file')
            if path and not _is_remote(metric) and not osp.isfile(path):
                raise UserError(
                    f'The annotation file {path} of {name} does not exist.'
                )


def _check_branches(cfg: Config) -> None:
    """Raise unless the model takes what the training pipelines make."""
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or {}
    takes = _registered_class(preprocessor, MODELS)
    for name, _, transforms in leaf_pipelines(cfg, 'train'):
        makes_branches = any(
            _is_a(_registered_class(part, TRANSFORMS), MultiBranch)
            for part in _nested_transforms(transforms)
        )
        if not makes_branches and _is_a(takes, MultiBranchDataPreprocessor):
            raise UserError(
                'model.data_preprocessor, a MultiBranchDataPreprocessor, '
                'takes images in branches (weak, strong), but the pipeline '
                f'of {name} has no MultiBranch to make them: inherit '
                'configs/_base_/datasets/coco_detection_re_aug.py, or set '
                'model.data_preprocessor to the data_preprocessor that it has '
                'within.'
            )
        if makes_branches and _is_a(takes, DetDataPreprocessor):
            raise UserError(
                f'The pipeline of {name} has a MultiBranch, but '
                f'model.data_preprocessor, a {takes.__name__}, takes no '
                'branches: set it to '
                "dict(type='MultiBranchDataPreprocessor', "
                'data_preprocessor=dict(...)) with its present settings '
                'within, as configs/_base_/models/hpr_r50.py does.'
            )


def _nested_transforms(transforms: Sequence) -> Iterator[ConfigDict]:
    """Yield the transforms of a pipeline and those that they wrap."""
    for part in transforms:
        if isinstance(part, dict):
            yield part
            yield from _nested_transforms(part.get('transforms') or ())
        elif isinstance(part, (list, tuple)):
            yield from _nested_transforms(part)


def _is_remote(part: ConfigDict) -> bool:
    """Tell whether a dataset or metric reads through a storage backend."""
    paths = (part.get('data_root'), part.get('ann_file'))
    return part.get('backend_args') is not None or any(
        '://' in (path or '') for path in paths
    )


@dataclass(frozen=True)
class AnnotationFile:
    """What the checks need of a COCO json.

    Attributes:
        path (str): Where it lies.
        categories (tuple[str, ...]): Names in the order of the file.
        first_image (str | None): ``file_name`` of the first image.
        with_annotations (bool): Whether there is any annotation.
        without_mask (dict[str, Any]): The id of an annotation without a mask
            of each category that has one.
    """

    path: str
    categories: tuple[str, ...]
    first_image: str | None
    with_annotations: bool
    without_mask: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> 'AnnotationFile':
        """Read a file.

        Args:
            path (str): An existing file.

        Returns:
            AnnotationFile: Its summary.

        Raises:
            UserError: If it is no COCO json, has no categories, or an
                annotation lacks what mmdet and pycocotools read.
        """
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:  # neither json nor even text
            raise UserError(
                f'The annotation file {path} is not a COCO json: {error}.'
            ) from error
        if not isinstance(content, dict) or 'images' not in content:
            raise UserError(
                f'The annotation file {path} is not a COCO json: expected an '
                "object with 'images', 'annotations' and 'categories'."
            )
        categories = content.get('categories')
        if not categories:
            raise UserError(
                f"The annotation file {path} has no 'categories'; expected a "
                "list such as [{'id': 1, 'name': 'cat'}]."
            )
        _check_annotations(path, content.get('annotations') or [])
        images = content['images']
        return cls(
            path=path,
            categories=tuple(category['name'] for category in categories),
            first_image=images[0]['file_name'] if images else None,
            with_annotations=bool(content.get('annotations')),
            without_mask=_without_mask(content),
        )


def _check_annotations(path: str, annotations: Sequence[dict]) -> None:
    """Raise if an annotation lacks one of the keys that are read."""
    for annotation in annotations:
        missing = [key for key in _ANNOTATION_KEYS if key not in annotation]
        if missing:
            raise UserError(
                f"An annotation of {path} has no '{missing[0]}': "
                f'{_shortened(annotation)} are its keys; expected '
                f'{", ".join(_ANNOTATION_KEYS)}.'
            )
        box, area = annotation['bbox'], annotation['area']
        if not (_are_numbers(box, 4) and _are_numbers([area], 1)):
            raise UserError(
                f'Annotation {annotation["id"]} of {path} has the bbox {box} '
                f'and the area {area}; expected [x, y, width, height] and a '
                'number.'
            )


def _are_numbers(values: Any, count: int) -> bool:
    """Tell whether something is a list of so many numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) for value in values)
    )


def _without_mask(content: dict) -> dict[str, Any]:
    """Find annotations without a mask among those that mmdet reads."""
    names = {item['id']: item['name'] for item in content['categories']}
    images = {image['id']: image for image in content['images']}
    return {
        names.get(annotation['category_id'], ''): annotation['id']
        for annotation in content.get('annotations') or []
        if not (annotation.get('segmentation') or annotation.get('ignore'))
        and annotation['image_id'] in images
        and annotation['area'] > 0
        and _is_inside(annotation['bbox'], images[annotation['image_id']])
    }


def _is_inside(bbox: list[float], image: dict) -> bool:
    """Tell whether mmdet trains on a box: it is in the image, of a pixel."""
    x, y, width, height = bbox
    right = min(x + width, image.get('width', math.inf))
    bottom = min(y + height, image.get('height', math.inf))
    is_seen = right > max(x, 0) and bottom > max(y, 0)
    return is_seen and min(width, height) >= 1


def _check_dataset(
    name: str,
    dataset: ConfigDict,
    transforms: Sequence,
    split: str,
    read: dict[str, AnnotationFile],
) -> None:
    """Check one dataset; ``read`` keeps the files that were read."""
    root = dataset.get('data_root') or ''
    if root and not osp.isdir(root):
        raise UserError(
            f'The data root {root} of {name} does not exist; say where the '
            'dataset lies with --cfg-options data_root=FOLDER.'
        )
    dataset_class = _registered_class(dataset, DATASETS)
    if dataset_class is None or not issubclass(dataset_class, CocoDataset):
        return
    path = osp.join(root, dataset.get('ann_file') or '')
    if not osp.isfile(path):
        raise UserError(
            f'The annotation file {path} of {name} does not exist.'
        )
    if path not in read:
        read[path] = AnnotationFile.read(path)
    if split == 'train' and not read[path].with_annotations:
        raise UserError(
            f'The annotation file {path} of {name} has no annotations to '
            'train on.'
        )
    _check_images(name, dataset, read[path])
    # Other loaders number the labels in their own ways.
    if dataset_class.load_data_list is CocoDataset.load_data_list:
        _check_classes(dataset, read[path])
        if any(part.get('with_mask') for part in nested_dicts(transforms)):
            _check_masks(name, dataset, read[path])


def _check_images(
    name: str, dataset: ConfigDict, annotations: AnnotationFile
) -> None:
    """Raise if the first image is not in the image folder."""
    folder = osp.join(
        dataset.get('data_root') or '',
        (dataset.get('data_prefix') or {}).get('img') or '',
    )
    if not osp.isdir(folder):
        raise UserError(f'The image folder {folder} of {name} does not exist.')
    first_image = annotations.first_image
    if first_image and not osp.isfile(osp.join(folder, first_image)):
        raise UserError(
            f'The image {first_image}, which {annotations.path} names, is not '
            f'in the image folder {folder} of {name}.'
        )


def _check_classes(dataset: ConfigDict, annotations: AnnotationFile) -> None:
    """Raise if the labels would not mean the classes of the dataset.

    mmdet numbers the labels by the order of those categories of the file
    that are among the classes. A class that is missing or stands elsewhere
    shifts the meaning of all labels after it without a word.
    """
    classes = _dataset_classes(dataset) or ()
    present = tuple(n for n in annotations.categories if n in classes)
    if present == classes:
        return
    missing = [name for name in classes if name not in present]
    if missing:
        raise UserError(
            f'{annotations.path} has {len(present)} of the {len(classes)} '
            f'classes of the config ({_shortened(missing)} missing); set '
            'classes to names of its categories: '
            f'{_shortened(annotations.categories)}.'
        )
    raise UserError(
        f'The classes of the config are not in the order of the categories '
        f'of {annotations.path}, by which the labels are numbered; write '
        f'classes={present}.'
    )


def _check_masks(
    name: str, dataset: ConfigDict, annotations: AnnotationFile
) -> None:
    """Raise if an annotation of one of the classes has no mask."""
    for class_name in _dataset_classes(dataset) or ():
        if class_name in annotations.without_mask:
            raise UserError(
                f'Annotation {annotations.without_mask[class_name]} of '
                f'{annotations.path}, a {class_name!r}, has no '
                f"'segmentation', but the pipeline of {name} loads masks "
                '(with_mask=True); expected polygons or RLE in each '
                'annotation, or a pipeline without masks.'
            )


def _shortened(names: Iterable[str]) -> str:
    """List the first few names."""
    names = list(names)
    shown = ', '.join(map(repr, names[:_NUM_NAMES_SHOWN]))
    more = len(names) - _NUM_NAMES_SHOWN
    return f'{shown} and {more} more' if more > 0 else shown


def _registered_class(part: ConfigDict, registry: Registry) -> Any:
    """Look up the class of a part, None if it is not registered."""
    name = part.get('type')
    if inspect.isclass(name):
        return name
    return registry.get(name) if isinstance(name, str) else None


def _is_a(found: Any, parent: type) -> bool:
    """Tell whether what was looked up is a class of this kind."""
    return inspect.isclass(found) and issubclass(found, parent)


def _dataset_classes(dataset: ConfigDict) -> tuple[str, ...] | None:
    """Return the classes that a dataset will have, None if unknown."""
    metainfo = dataset.get('metainfo') or {}
    dataset_class = _registered_class(dataset, DATASETS)
    default = getattr(dataset_class, 'METAINFO', {})
    classes = metainfo.get('classes', default.get('classes'))
    # A string would be a file of names, which the dataset itself reads.
    return tuple(classes) if isinstance(classes, (list, tuple)) else None
