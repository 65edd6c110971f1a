# Copyright (c) mmdetr authors. All rights reserved.
"""Reports the results of a fine-tuning."""

import csv
import json
import math
from pathlib import Path

from rich.table import Table

from project.apis.finetuning.recipe import MONITOR
from project.checkpoints.last_checkpoint import MARKER
from project.utils.errors import UserError


def best_checkpoint(work_dir: Path) -> Path:
    """Find the best checkpoint, else the last one.

    Raises:
        UserError: If there is none.
    """
    name = MONITOR.replace('/', '_')
    found = sorted(
        work_dir.glob(f'best_{name}_epoch_*.pth'),
        key=lambda path: path.stat().st_mtime,
    )
    last = work_dir / MARKER
    if not found and last.is_file():
        found = [work_dir / Path(last.read_text().strip()).name]
    if not found or not found[-1].is_file():
        raise UserError(f'{work_dir} holds no checkpoint to test.')
    return found[-1]


def read_metrics(folder: Path) -> dict[str, float]:
    """Read the metrics of the last test into a folder.

    Raises:
        UserError: If there are none.
    """
    files = sorted(folder.glob('*/*.json'))
    if not files:
        raise UserError(f'{folder} holds no metrics of a test.')
    return json.loads(files[-1].read_text(encoding='utf-8'))


def write_class_aps(
    metrics: dict[str, float], classes: tuple[str, ...], out: Path
) -> Table:
    """Write the AP of each class as CSV.

    Args:
        metrics: With ``coco/<class>_precision``.
        classes: Names of the classes.
        out: File to write.

    Returns:
        The APs as a table to print. A class without objects has none.
    """
    table = Table(title='AP of each class', title_justify='left')
    table.add_column('class')
    table.add_column('AP', justify='right')
    with out.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['class', 'AP'])
        for name in classes:
            value = metrics.get(f'coco/{name}_precision', float('nan'))
            text = '' if math.isnan(value) else f'{value:.3f}'
            writer.writerow([name, text])
            table.add_row(name, text or '-')
    return table
