# Copyright (c) mmdetr authors. All rights reserved.
"""Quantize an exported ONNX file to int8, and measure what it costs in AP.

Weights and activations of the convolutions become int8, with ranges that are
measured on images of yours (ONNX Runtime's static quantization).
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _cli import add_traceback, require_file, user_errors
from _types import out_file, positive_int

if TYPE_CHECKING:
    from predict import OnnxDetector

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='ONNX file of export.py')
    parser.add_argument('images', help='folder of images like those to come')
    parser.add_argument(
        '--out', type=out_file, required=True, metavar='FILE', help='the file'
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        default=100,
        help='images that ranges are measured on (default: %(default)s)',
    )
    parser.add_argument(
        '--operators',
        nargs='+',
        choices=('Conv', 'Gemm', 'MatMul'),
        default=['Conv'],
        help='what to quantize (default: Conv)',
    )
    parser.add_argument(
        '--annotations',
        help="COCO's json of the images: print the AP of both files",
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an existing FILE'
    )
    add_traceback(parser)
    args = parser.parse_args(argv)
    require_file(args.model, 'model')
    if args.annotations:
        require_file(args.annotations, 'annotation file')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Quantize, and evaluate both files."""
    args = parse_args(argv)
    with user_errors(args.traceback):
        from predict import OnnxDetector

        quantize(args)
        if not args.annotations:
            return
        for name in (args.model, args.out):
            found = average_precision(
                OnnxDetector(name), Path(args.images), args.annotations
            )
            print(f'{name}: bbox mAP {found:.3f}')


def quantize(args: argparse.Namespace) -> None:
    """Write the quantized file.

    Raises:
        UserError: If there are no images, or the file exists.
    """
    from onnxruntime.quantization import QuantType, quantize_static
    from predict import OnnxDetector

    from project.utils.errors import UserError

    out = Path(args.out)
    if out.exists() and not args.overwrite:
        raise UserError(
            f'{out} exists; name another file, or replace it with --overwrite'
        )
    paths = sorted(
        path
        for path in Path(args.images).rglob('*')
        if path.suffix.lower() in IMAGES
    )
    if not paths:
        raise UserError(f'There are no images in {args.images}.')
    step = max(len(paths) // args.num_images, 1)
    chosen = paths[::step][: args.num_images]
    beside = out.with_name(f'.{out.name}')
    try:
        quantize_static(
            args.model,
            beside,
            _Reader(OnnxDetector(args.model), chosen),
            op_types_to_quantize=args.operators,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    print(f'Written: {out}, calibrated on {len(chosen)} images')


class _Reader:
    """Gives the images to ONNX Runtime, one at a time."""

    def __init__(
        self, detector: 'OnnxDetector', paths: Sequence[Path]
    ) -> None:
        self._inputs = self._read(detector, paths)

    def get_next(self) -> dict | None:
        """Return the next image, None after the last."""
        return next(self._inputs, None)

    @staticmethod
    def _read(
        detector: 'OnnxDetector', paths: Sequence[Path]
    ) -> Iterator[dict]:
        from PIL import Image

        for path in paths:
            yield {'images': detector.prepare(Image.open(path))}


def average_precision(
    detector: 'OnnxDetector', folder: Path, annotations: str
) -> float:
    """Evaluate a file.

    Args:
        detector (OnnxDetector): The file.
        folder (Path): Of the images.
        annotations (str): COCO's json.

    Returns:
        float: COCO's AP of boxes.
    """
    from PIL import Image

    content = json.loads(Path(annotations).read_text())
    ids = {x['name']: x['id'] for x in content['categories']}
    results = [
        dict(
            image_id=image['id'],
            category_id=ids[found.name],
            bbox=[*found.box[:2], *_extent(found.box)],
            score=found.score,
        )
        for image in content['images']
        for found in detector(Image.open(folder / image['file_name']), 0.0)
    ]
    return _evaluate(annotations, results)


def _extent(box: Sequence[float]) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _evaluate(annotations: str, results: list[dict]) -> float:
    """COCO's AP; its tables are not shown."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


if __name__ == '__main__':
    main()
