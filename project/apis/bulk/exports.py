# Copyright (c) mmdetr authors. All rights reserved.
"""Writes results as COCO's json, CSV and Parquet, one image after another."""

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from project.checkpoints.class_tensors import COCO_IDS
from project.checkpoints.writing import written_beside
from project.utils.errors import UserError

Add = Callable[[dict[str, Any]], None]
"""Takes the results of one image, as a line of a shard has them."""
_COLUMNS = ('image', 'frame', 'label', 'name', 'score', 'x1', 'y1', 'x2', 'y2')
_ROWS_OF_GROUP = 100_000


def check_formats(formats: Sequence[str]) -> None:
    """Raise if a format cannot be written here, before any work.

    Args:
        formats: Names of ``EXPORTS``; other names are ignored.

    Raises:
        UserError: If Parquet is wanted and pyarrow is not installed.
    """
    if 'parquet' in formats and find_spec('pyarrow') is None:
        raise UserError(
            'Parquet needs the package pyarrow: pip install pyarrow, or write '
            'csv.'
        )


@contextmanager
def open_exports(
    folder: Path, formats: Sequence[str], classes: Sequence[str]
) -> Iterator[tuple[list[Add], list[Path]]]:
    """Open files that appear only when all results have been added.

    Args:
        folder: Folder of the files.
        formats: Names of ``EXPORTS``.
        classes: Names of all classes.

    Yields:
        A function to add the results of an image, and the files.
    """
    with ExitStack() as stack:
        adds, paths = [], []
        for name in formats:
            if name in EXPORTS:
                path, export = folder / EXPORTS[name][0], EXPORTS[name][1]
                unfinished = stack.enter_context(written_beside(str(path)))
                adds.append(stack.enter_context(export(unfinished, classes)))
                paths.append(path)
        yield adds, paths


def category_ids(classes: Sequence[str]) -> list[int]:
    """Number categories from 1; COCO's own as COCO does."""
    if tuple(classes) == tuple(CocoDataset.METAINFO['classes']):
        return list(COCO_IDS)
    return list(range(1, len(classes) + 1))


@contextmanager
def _coco(path: str, classes: Sequence[str]) -> Iterator[Add]:
    """COCO's JSON. The boxes are buffered in a file behind the images."""
    ids = category_ids(classes)
    counts = dict(images=0, annotations=0)
    with (
        open(path, 'w', encoding='utf-8') as out,
        tempfile.TemporaryFile(
            'w+', encoding='utf-8', dir=Path(path).parent
        ) as waiting,
    ):
        out.write('{"images": [')

        def write(file: Any, kind: str, entry: dict) -> None:
            comma = ',\n' if counts[kind] else '\n'
            file.write(f'{comma}{json.dumps(entry)}')

        def add(result: dict[str, Any]) -> None:
            if 'error' in result:
                return
            number = counts['images'] + 1
            write(out, 'images', _coco_image(result, number))
            counts['images'] = number
            for box in _rows(result):
                entry = _coco_annotation(box, ids)
                entry |= dict(id=counts['annotations'] + 1, image_id=number)
                write(waiting, 'annotations', entry)
                counts['annotations'] += 1

        yield add
        out.write('\n],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, out)
        pairs = zip(ids, classes, strict=True)
        categories = [dict(id=number, name=name) for number, name in pairs]
        out.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


def _coco_image(result: dict[str, Any], number: int) -> dict[str, Any]:
    size = dict(width=result['width'], height=result['height'])
    name, frame = result['image'], result.get('frame')
    if frame is None:
        return dict(id=number, file_name=name, **size)
    return dict(id=number, file_name=f'{name}#{frame}', frame=frame, **size)


def _coco_annotation(row: dict[str, Any], ids: Sequence[int]) -> dict:
    x, y = row['x1'], row['y1']
    width, height = row['x2'] - x, row['y2'] - y
    return dict(
        category_id=ids[row['label']],
        bbox=[x, y, round(width, 3), round(height, 3)],
        area=round(width * height, 3),
        iscrowd=0,
        score=row['score'],
    )


@contextmanager
def _csv(path: str, classes: Sequence[str]) -> Iterator[Add]:
    """A row for each box."""
    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        yield lambda result: writer.writerows(_rows(result))


@contextmanager
def _parquet(path: str, classes: Sequence[str]) -> Iterator[Add]:
    """The same rows, in groups."""
    import pyarrow as pa
    from pyarrow import parquet

    types = dict(image=pa.string(), frame=pa.int64(), label=pa.int32())
    types |= dict(name=pa.string(), score=pa.float32())
    schema = pa.schema([(x, types.get(x, pa.float32())) for x in _COLUMNS])
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        rows.clear()

    def add(result: dict[str, Any]) -> None:
        rows.extend(_rows(result))
        if len(rows) >= _ROWS_OF_GROUP:
            flush()

    with parquet.ParquetWriter(path, schema) as writer:
        yield add
        flush()


def _rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Convert the boxes of an image to rows; none if it was broken."""
    if 'error' in result:
        return
    parts = (result[key] for key in ('labels', 'names', 'scores', 'boxes'))
    for label, name, score, box in zip(*parts, strict=True):
        values = (result['image'], result.get('frame'), label, name, score)
        yield dict(zip(_COLUMNS, (*values, *box), strict=True))


EXPORTS = dict(
    coco=('detections.json', _coco),
    csv=('detections.csv', _csv),
    parquet=('detections.parquet', _parquet),
)
"""File and writer of each format."""
