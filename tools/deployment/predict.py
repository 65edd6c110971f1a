# Copyright (c) mmdetr authors. All rights reserved.
"""Detect objects by an exported ONNX file.

Needs numpy, Pillow and onnxruntime alone, and nothing of this package: copy
this file into your product.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class Detection(NamedTuple):
    """A detected object; ``box`` is (x1, y1, x2, y2) in pixels."""

    name: str
    score: float
    box: tuple[float, float, float, float]


class OnnxDetector:
    """A detector that was exported by ``tools/deployment/export.py``.

    Args:
        path: The ONNX file.
        providers: Of ONNX Runtime, such as ``['CUDAExecutionProvider']``.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] = ('CPUExecutionProvider',),
    ) -> None:
        self.session = onnxruntime.InferenceSession(
            str(path), providers=list(providers)
        )
        described = self.session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(described['classes'])
        self.preprocessing: dict[str, Any] = json.loads(
            described['preprocessing']
        )
        *_, self.height, self.width = self.session.get_inputs()[0].shape

    def __call__(
        self, image: Image.Image, score_thr: float = 0.3
    ) -> list[Detection]:
        """Detect objects, best first, with boxes in pixels of the image."""
        image = ImageOps.exif_transpose(image)
        images = self.prepare(image)
        boxes, scores, labels = self.session.run(
            ['boxes', 'scores', 'labels'], {'images': images}
        )
        height, width = images.shape[2:]
        factor = np.array([image.width / width, image.height / height] * 2)
        # Labels of -1 fill up images with few detections.
        wanted = (scores[0] >= score_thr) & (labels[0] >= 0)
        return [
            Detection(self.classes[label], float(score), tuple(box.tolist()))
            for box, score, label in zip(
                boxes[0][wanted] * factor,
                scores[0][wanted],
                labels[0][wanted],
                strict=True,
            )
        ]

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize an image: (1, 3, h, w), RGB from 0 to 255."""
        size = self.input_size(image.width, image.height)
        resized = image.convert('RGB').resize(size, Image.Resampling.BILINEAR)
        return np.asarray(resized, np.float32).transpose(2, 0, 1)[None]

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image is resized to."""
        if isinstance(self.height, int):  # exported for one size
            return self.width, self.height
        scale = self.preprocessing['scale']
        if scale is None:
            return width, height
        if not self.preprocessing['keep_ratio']:
            return tuple(scale)
        short, long = sorted((width, height))
        side, limit = sorted(scale)
        if self.preprocessing['rounding'] == 'nearest':
            factor = min(limit / long, side / short)
            return int(width * factor + 0.5), int(height * factor + 0.5)
        if long * side > limit * short:
            side = round(limit * short / long)
        sides = (side, side * long // short) if side else (1, limit)
        return sides if width <= height else sides[::-1]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='ONNX file')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--score-thr', type=float, default=0.3)
    return parser.parse_args()


def main() -> None:
    """Print a line of JSON for each image."""
    args = parse_args()
    detector = OnnxDetector(args.model)
    for path in args.images:
        found = detector(Image.open(path), args.score_thr)
        objects = [detection._asdict() for detection in found]
        print(json.dumps(dict(image=path, objects=objects)))


if __name__ == '__main__':
    main()
