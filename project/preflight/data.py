# Copyright (c) mmdetr authors. All rights reserved.
"""Checks of the data of a config before anything is loaded."""

import logging
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.datasets.api_wrappers import COCO, COCOPanoptic
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from project.preflight.annotations import AnnotationFile
from project.preflight.coco_data import look_at_coco
from project.preflight.config_tree import (
    dataset_classes,
    evaluators,
    is_a,
    is_remote,
    leaf_pipelines,
    registered_class,
)
from project.preflight.dataset_report import DatasetReport
from project.preflight.evaluation import compares_boxes, judge_evaluation
from project.preflight.image_checks import judge_images
from project.preflight.image_depth import check_image_depth
from project.preflight.model import check_trainable
from project.preflight.training_boxes import judge_training_sets
from project.preflight.voc import look_at_voc
from project.utils.errors import UserError


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Check everything that dataloaders and evaluators are going to read.

    Boxes that are left out of a training are logged in one line per dataset.
    Files on remote storage are not checked. What was read of large files is
    cached in the user's cache folder by path, size and modification time.

    Args:
        cfg (Config): A config after ``resolve_config``.
        splits (Sequence[str]): Which of ``train``, ``val`` and ``test`` to
            check.

    Raises:
        UserError: If a root, annotation file or image is missing or broken;
            if an annotation file does not fit its dataset, images or metric,
            or lacks masks that are loaded; if hardly any box is left to train
            on; if the model does not take the branches of its images; or if a
            pipeline resizes float images with mmdet's Pillow backend.
    """
    if 'train' in splits:
        check_trainable(cfg)
    for split in splits:
        check_image_depth(cfg, split)
    told = set()
    for report in look_at_data(cfg, splits):
        for finding in report.findings:
            if finding.is_fatal:
                raise UserError(finding.sentence)
            if finding.sentence not in told:
                told.add(finding.sentence)
                print_log(finding.sentence, 'current', logging.WARNING)


def look_at_data(
    cfg: Config, splits: Sequence[str]
) -> Iterator[DatasetReport]:
    """Check each dataset of a config.

    Yields:
        DatasetReport: The findings of one dataset. The first training set
        comes again at the end if all of them together have a fault.
    """
    files = _Files()
    for split in splits:
        reports = []
        for name, dataset, transforms in leaf_pipelines(cfg, split):
            report = _blank_report(cfg, split, name, dataset, transforms)
            _look(report, files)
            reports.append(report)
            if report is not None and split == 'train':
                yield report
        if split == 'train':
            told = len(reports[0].findings) if reports else 0
            judge_training_sets(reports)
            if reports and len(reports[0].findings) > told:
                yield reports[0]
            continue
        _look_at_metrics(cfg, split, reports, files)
        yield from reports


class _Files:
    """Reads each annotation file once."""

    def __init__(self) -> None:
        self._read: dict[str, AnnotationFile] = {}

    def read(self, path: str) -> AnnotationFile:
        """Read a file, or return what was read before."""
        if path not in self._read:
            self._read[path] = AnnotationFile.read(path)
        return self._read[path]


def _blank_report(
    cfg: Config,
    split: str,
    name: str,
    dataset: ConfigDict,
    transforms: Sequence,
) -> DatasetReport:
    """Describe a dataset as its config does."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    prefix = prefix.get('img') if isinstance(prefix, dict) else prefix
    ann_file = dataset.get('ann_file')
    max_broken = cfg.get('max_broken_images')
    return DatasetReport(
        name=name,
        split=split,
        config=dataset,
        dataset_class=registered_class(dataset, DATASETS),
        transforms=transforms,
        classes=dataset_classes(dataset) or (),
        # A user's class may take lists of either.
        source=osp.join(root, ann_file if isinstance(ann_file, str) else ''),
        folder=osp.join(root, prefix if isinstance(prefix, str) else ''),
        # The dataloader refuses other values.
        max_broken=max_broken if isinstance(max_broken, int) else 0,
    )


def _look(report: DatasetReport, files: _Files) -> None:
    """Check one dataset; a file that cannot be read is a finding."""
    if is_remote(report.config):
        return
    try:
        root = report.config.get('data_root') or ''
        if root and not osp.isdir(root):
            raise UserError(
                f'The data root {root} of {report.name} does not exist; say '
                'where the dataset lies with --cfg-options data_root=FOLDER.'
            )
        if is_a(report.dataset_class, XMLDataset):
            look_at_voc(report)
        elif _reads_coco(report.dataset_class):
            look_at_coco(report, files.read)
        if report.images is not None:
            judge_images(report, report.images)
    except UserError as error:
        report.refuse(str(error))


def _reads_coco(dataset_class: Any) -> bool:
    """Return whether a dataset class reads boxes from a COCO json."""
    if not is_a(dataset_class, CocoDataset):
        return False
    api = dataset_class.COCOAPI
    return is_a(api, COCO) and not is_a(api, COCOPanoptic)


def _look_at_metrics(
    cfg: Config, split: str, reports: list[DatasetReport], files: _Files
) -> None:
    """Check the annotation files of the metrics of a split."""
    for name, metric in evaluators(cfg, split):
        path = metric.get('ann_file')
        if not path or is_remote(metric) or not reports:
            continue
        report = reports[0]
        if not osp.isfile(path):
            report.refuse(
                f'The annotation file {path} of {name} does not exist.'
            )
        elif compares_boxes(metric) and len(reports) == 1 and report.classes:
            _judge_metric(report, name, metric, files)


def _judge_metric(
    report: DatasetReport, name: str, metric: ConfigDict, files: _Files
) -> None:
    """Check the annotation file of a metric."""
    try:
        file = files.read(metric.ann_file)
    except UserError as error:
        report.refuse(str(error))
        return
    judge_evaluation(report, name, metric, file)
