# Copyright (c) mmdetr authors. All rights reserved.
"""A detector as a stage of Ray Data; needs the extra ``ray``."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from project.apis.detectors import DEFAULT_SCORE_THR, load_detector
from project.utils.errors import UserError

if TYPE_CHECKING:
    import pyarrow


class RayDetector:
    """Detects objects in the batches of a Ray dataset.

    Ray builds one in each of its workers::

        dataset = ray.data.read_images('s3://mine/photos', include_paths=True)
        found = dataset.map_batches(
            RayDetector,
            fn_constructor_args=['h-detr.pth'],
            batch_size=8,
            num_gpus=1,
            concurrency=4,
        )
        found.write_parquet('s3://mine/found')

    Args:
        checkpoint: Path or URL that every worker can read.
        score_thr: The lowest score that is kept, from 0 to 1.
        **options: ``config`` and ``device`` of
            :func:`~project.apis.load_detector`.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        score_thr: float = DEFAULT_SCORE_THR,
        **options: Any,
    ) -> None:
        self.detector = load_detector(checkpoint, **options)
        self.score_thr = score_thr

    def __call__(self, batch: dict[str, np.ndarray]) -> 'pyarrow.Table':
        """Detect objects in a batch.

        Args:
            batch: With a column ``image`` (RGB pixels, as ``read_images``
                gives them) or else ``path``; of each image one row.

        Returns:
            pyarrow.Table: A row for each image: all columns but ``image``,
            ``width`` and ``height`` in pixels, ``boxes`` (x1, y1, x2, y2) in
            pixels of the image, ``scores``, ``labels``, ``names``, and
            ``error``, which is null unless the image could not be read.

        Raises:
            UserError: If there is neither column.
        """
        import pyarrow as pa

        column = 'image' if 'image' in batch else 'path'
        if column not in batch:
            raise UserError(
                f'The batch has the columns {sorted(batch)}; expected image '
                'or path.'
            )
        images = list(batch[column])
        found = self._detect_each(images)
        columns = {
            name: pa.array(list(values))
            for name, values in batch.items()
            if name != 'image'
        }
        for name, kind in _kinds().items():
            values = [row.get(name) for row in found]
            columns[name] = pa.array(values, kind)
        return pa.table(columns)

    def _detect_each(self, images: list) -> list[dict[str, Any]]:
        """Detect in one pass; image by image if one cannot be read."""
        try:
            found = self.detector(
                images, self.score_thr, batch_size=len(images)
            )
            return [one.to_dict() for one in found]
        except UserError as error:
            if len(images) == 1:
                return [dict(error=str(error))]
            return [self._detect_each([image])[0] for image in images]


def _kinds() -> dict[str, Any]:
    """Types of the columns that are added, whatever is found."""
    import pyarrow as pa

    return dict(
        width=pa.int32(),
        height=pa.int32(),
        boxes=pa.list_(pa.list_(pa.float32())),
        scores=pa.list_(pa.float32()),
        labels=pa.list_(pa.int64()),
        names=pa.list_(pa.string()),
        error=pa.string(),
    )
