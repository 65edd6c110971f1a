# Copyright (c) mmdetr authors. All rights reserved.
"""Detections of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from PIL import Image

from project.utils.errors import UserError, some_of


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections of one image, sorted by score.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the image, has shape (n, 4),
            float32.
        scores: Scores in [0, 1], has shape (n, ), float32.
        labels: Class indices from 0, has shape (n, ), int64.
        names: Class name of each detection.
        size: Width and height of the image in pixels.
        source: Path of the image, or its pixels: (h, w, 3), uint8, RGB.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    size: tuple[int, int]
    source: str | np.ndarray

    @classmethod
    def of(
        cls,
        instances: Any,
        classes: Sequence[str],
        size: tuple[int, int],
        source: str | np.ndarray,
    ) -> 'Detections':
        """Convert the results of a detector of mmdet.

        Args:
            instances: ``pred_instances`` of a sample.
            classes: Names of all classes.
            size: Width and height of the image in pixels.
            source: See the attribute.
        """
        found = instances.cpu().numpy()
        # Most heads sort by themselves.
        order = np.argsort(-found.scores, kind='stable')
        labels = found.labels[order].astype(np.int64)
        return cls(
            boxes=found.bboxes[order].astype(np.float32),
            scores=found.scores[order].astype(np.float32),
            labels=labels,
            names=tuple(classes[label] for label in labels),
            size=size,
            source=source,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        pairs = zip(self.names, self.scores, strict=True)
        shown = [f'{name} {score:.2f}' for name, score in pairs]
        return f'Detections({some_of(shown, 5) or "none"})'

    def above(
        self, score_thr: float, labels: Sequence[int] | None = None
    ) -> 'Detections':
        """Filter the detections by score and class.

        Args:
            score_thr: The lowest score that is kept.
            labels: Indices of the classes that are kept. By default all.
        """
        kept = self.scores >= score_thr
        if labels is not None:
            kept &= np.isin(self.labels, labels)
        return Detections(
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            names=tuple(np.array(self.names, object)[kept]),
            size=self.size,
            source=self.source,
        )

    def plot(self) -> Image.Image:
        """Draw the detections on their image.

        Returns:
            PIL.Image: Has the size of the image; ``.save('found.png')``
            writes it, a notebook shows it.

        Raises:
            UserError: If the image can no longer be read.
        """
        from project.visualization.boxes import draw_on_image

        pairs = zip(self.names, self.scores, strict=True)
        titles = [f'{name} {score:.2f}' for name, score in pairs]
        labels = self.labels.tolist()
        return draw_on_image(self._pixels(), self.boxes, labels, titles)

    def to_supervision(self) -> Any:
        """Convert to the package supervision.

        Returns:
            supervision.Detections: With ``class_name`` among its data.

        Raises:
            UserError: If supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError(
                'to_supervision needs the package supervision: pip install '
                'supervision.'
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            data=dict(class_name=np.array(self.names, dtype=str)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists, for JSON.

        Returns:
            dict: ``width``, ``height``, ``boxes``, ``scores``, ``labels`` and
            ``names``.
        """
        return dict(
            width=self.size[0],
            height=self.size[1],
            boxes=np.round(self.boxes.astype(float), 3).tolist(),
            scores=np.round(self.scores.astype(float), 6).tolist(),
            labels=self.labels.tolist(),
            names=list(self.names),
        )

    def _pixels(self) -> np.ndarray:
        if isinstance(self.source, np.ndarray):
            return self.source
        try:
            return mmcv.imread(self.source, channel_order='rgb')
        except Exception as error:
            raise UserError(
                f'The image {Path(self.source)} cannot be read: {error}.'
            ) from error
