# Copyright (c) mmdetr authors. All rights reserved.
"""Mistakes in the data of a config, found before anything is loaded."""

import os.path as osp
from collections.abc import Sequence

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from project.preflight.annotations import AnnotationFile, shortened
from project.preflight.config_tree import (
    dataset_classes,
    evaluators,
    is_remote,
    leaf_pipelines,
    nested_dicts,
    registered_class,
)
from project.preflight.model import check_branches
from project.utils.errors import UserError


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
        check_branches(cfg)
    read: dict[str, AnnotationFile] = {}
    for split in splits:
        for name, dataset, transforms in leaf_pipelines(cfg, split):
            if not is_remote(dataset):
                _check_dataset(name, dataset, transforms, split, read)
        for name, metric in evaluators(cfg, split):
            path = metric.get('ann_file')
            if path and not is_remote(metric) and not osp.isfile(path):
                raise UserError(
                    f'The annotation file {path} of {name} does not exist.'
                )


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
    dataset_class = registered_class(dataset, DATASETS)
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
    classes = dataset_classes(dataset) or ()
    present = tuple(n for n in annotations.categories if n in classes)
    if present == classes:
        return
    missing = [name for name in classes if name not in present]
    if missing:
        raise UserError(
            f'{annotations.path} has {len(present)} of the {len(classes)} '
            f'classes of the config ({shortened(missing)} missing); set '
            'classes to names of its categories: '
            f'{shortened(annotations.categories)}.'
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
    for class_name in dataset_classes(dataset) or ():
        if class_name in annotations.without_mask:
            raise UserError(
                f'Annotation {annotations.without_mask[class_name]} of '
                f'{annotations.path}, a {class_name!r}, has no '
                f"'segmentation', but the pipeline of {name} loads masks "
                '(with_mask=True); expected polygons or RLE in each '
                'annotation, or a pipeline without masks.'
            )
