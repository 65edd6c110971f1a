# Copyright (c) mmdetr authors. All rights reserved.
"""Prints a report on the datasets of a config."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from project.preflight.config_tree import SPLITS
from project.preflight.data import look_at_data
from project.preflight.dataset_report import DatasetReport, Finding
from project.preflight.duplicates import Duplicates, find_duplicates
from project.preflight.model import check_trainable
from project.utils.errors import UserError

_SHOWN_CLASSES = 100


def examine(cfg: Config, console: Console) -> bool:
    """Check all datasets of a config and print a report.

    Returns:
        bool: Whether a training would accept them.
    """
    splits = _different_splits(cfg)
    findings: list[Finding] = []
    try:
        check_trainable(cfg)
    except UserError as error:
        findings.append(Finding(True, str(error)))
    found = {r.name: r for r in look_at_data(cfg, splits)}
    reports = list(found.values())
    findings += dict.fromkeys(f for r in reports for f in r.findings)
    console.print(_overview(reports))
    if any(report.boxes_of for report in reports):
        console.print(_classes(reports))
    for duplicates in _all_duplicates(reports):
        console.print(escape(duplicates.told()), soft_wrap=True)
    _print_findings(findings, console)
    return not any(finding.is_fatal for finding in findings)


def _different_splits(cfg: Config) -> list[str]:
    """The splits, without ``test`` if it is the validation set."""
    splits = [s for s in SPLITS if cfg.get(f'{s}_dataloader')]
    if {'val', 'test'} <= set(splits) and (
        cfg.val_dataloader.dataset == cfg.test_dataloader.dataset
        and cfg.get('val_evaluator') == cfg.get('test_evaluator')
    ):
        splits.remove('test')
    return splits


def _overview(reports: Sequence[DatasetReport]) -> Table:
    """Make a table with a column per dataset."""
    table = Table(title='Datasets', title_justify='left')
    table.add_column('')
    for report in reports:
        table.add_column(escape(report.name), overflow='fold')
    rows = (
        ('type', lambda r: str(getattr(r.dataset_class, '__name__', '?'))),
        ('annotations', lambda r: r.source),
        ('image folder', lambda r: r.folder),
        ('images', _num_images),
        ('without boxes', lambda r: f'{r.without_boxes:,}'),
        ('boxes', lambda r: f'{sum(r.boxes_of.values()):,}'),
        ('small, medium, large', _box_sizes),
        ('left out', _left_out),
        ('image sizes', _image_sizes),
        ('turned by EXIF', _turned),
        ('broken images', _broken),
    )
    for name, describe in rows:
        table.add_row(name, *(escape(describe(r)) for r in reports))
    return table


def _num_images(report: DatasetReport) -> str:
    if report.images is None:
        return '?' if report.file is None else f'{len(report.file.names):,}'
    listed, seen = len(report.names), int(report.images.seen.sum())
    if report.file is not None:
        listed = len(report.file.image_ids)
    return f'{listed:,}' + (f' ({seen:,} seen)' if seen < listed else '')


def _box_sizes(report: DatasetReport) -> str:
    return ', '.join(f'{count:,}' for count in report.box_sizes)


def _left_out(report: DatasetReport) -> str:
    if report.count is None:
        return '?'
    left_out = report.count.left_out
    return '\n'.join(f'{n:,} {why}' for why, n in left_out.items()) or '0'


def _image_sizes(report: DatasetReport) -> str:
    if report.images is None:
        return '?'
    sizes = report.images.shown_sizes
    sizes = sizes[(sizes > 0).all(1)]
    if not len(sizes):
        return '?'
    order = np.argsort(sizes.prod(1), kind='stable')
    named = (('smallest', 0), ('median', len(order) // 2), ('largest', -1))
    return '\n'.join(
        '{} {} x {}'.format(name, *sizes[order[position]])
        for name, position in named
    )


def _turned(report: DatasetReport) -> str:
    if report.images is None:
        return '?'
    return f'{int((report.images.turns > 1).sum()):,}'


def _broken(report: DatasetReport) -> str:
    images = report.images
    if images is None:
        return '?'
    counts = Counter(images.fault(index) for index in images.with_fault())
    return '\n'.join(f'{n:,} {why}' for why, n in counts.items()) or '0'


def _classes(reports: Sequence[DatasetReport]) -> Table:
    """Make a table of the number of boxes per class and dataset."""
    table = Table(title='Boxes of each class', title_justify='left')
    table.add_column('class')
    for report in reports:
        table.add_column(escape(report.name), justify='right')
    names = list(dict.fromkeys(n for r in reports for n in r.boxes_of))
    for name in names[:_SHOWN_CLASSES]:
        counts = (r.boxes_of.get(name, 0) for r in reports)
        table.add_row(escape(str(name)), *(f'{n:,}' for n in counts))
    if len(names) > _SHOWN_CLASSES:
        table.add_row(f'{len(names) - _SHOWN_CLASSES:,} more')
    return table


def _all_duplicates(reports: Sequence[DatasetReport]) -> list[Duplicates]:
    """Find images shared by training and evaluation sets."""
    by_split = {
        split: [r for r in reports if r.split == split] for split in SPLITS
    }
    compared = (
        find_duplicates(by_split['train'], by_split[split])
        for split in ('val', 'test')
    )
    return [duplicates for duplicates in compared if duplicates]


def _print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings, fatal ones first."""
    for finding in sorted(findings, key=lambda f: not f.is_fatal):
        kind = '[red]error[/]' if finding.is_fatal else '[yellow]warning[/]'
        sentence = escape(finding.sentence)
        console.print(f'{kind}: {sentence}', soft_wrap=True)
    if not findings:
        console.print('Nothing is wrong with the data.')
