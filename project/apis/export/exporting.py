# Copyright (c) mmdetr authors. All rights reserved.
"""Exports a detector and compares the file with it before it is kept."""

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from project.apis.detectors import Detector
from project.datasets.shapes_scene import draw_scene
from project.models.layers.transformer.regional_layers import (
    RegionalCrossAttention,
    RegionalDynamicConv,
)
from project.utils.errors import UserError

from .comparison import HALF, Difference, Tolerance, compare
from .description import describe, input_shape, preprocessing
from .network import ExportedNetwork, capture
from .runtimes import check_packages, open_file, write

_SUFFIXES = {'openvino': '.xml'}


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        kind (str): Format: ``'onnx'``, ``'openvino'`` or ``'torch-export'``.
        out (Path): The file.
        dynamic (bool): Whether it takes any number of images of any size,
            instead of one image of ``shape``.
        half (bool): Whether its weights are float16.
        shape (tuple[int, int], optional): (h, w) of the images, by default
            that of the test pipeline.
        overwrite (bool): Whether to replace an existing file.
    """

    kind: str
    out: Path
    dynamic: bool = False
    half: bool = False
    shape: tuple[int, int] | None = None
    overwrite: bool = False

    def check(self) -> None:
        """Raise if the file cannot be written.

        Raises:
            UserError: If packages are missing, or the file exists or has
                another ending than its format.
        """
        check_packages(self.kind)
        suffix = _SUFFIXES.get(self.kind)
        if suffix and self.out.suffix != suffix:
            raise UserError(
                f'{self.out} should end in {suffix} for the format '
                f'{self.kind}, which writes a file with the weights beside it'
            )
        there = [path for path in self.files() if path.exists()]
        if there and not self.overwrite:
            raise UserError(
                f'{there[0]} exists; name another file, or replace it with '
                '--overwrite'
            )

    def files(self) -> list[Path]:
        """List the files of this format."""
        weights = [self.out.with_suffix('.bin')]
        return [*(weights if self.kind == 'openvino' else []), self.out]


def export(detector: Detector, request: Request) -> tuple[Difference, str]:
    """Export a detector.

    The file gets its name only after it has detected the same as PyTorch:
    with ``dynamic`` in images of three sizes and in two at once.

    Args:
        detector (Detector): On the CPU, in float32.
        request (Request): What to export.

    Returns:
        tuple[Difference, str]: The largest difference from PyTorch, and what
        images it was measured on.

    Raises:
        UserError: If the detector or its test pipeline cannot be exported,
            or the file detects something else; then there is none.
    """
    request.check()
    reference = ExportedNetwork(detector.model)
    _check_parts(request, reference)
    metadata = describe(detector)
    shape = request.shape or input_shape(preprocessing(detector.config))
    network = reference
    if request.half:
        network = copy.deepcopy(reference)
        network.model.half()
    example = _example(shape) if request.dynamic else shape
    for_onnx = request.kind != 'torch-export'
    program = capture(network, example, request.dynamic, for_onnx)
    with _kept_if_good(request.files()) as files:
        write(request.kind, program, files[-1], metadata)
        run = open_file(request.kind, files[-1])
        pictures, origin = _pictures(detector)
        difference = Difference()
        for images in _batches(pictures, shape, request.dynamic):
            expected = _detect(reference, images)
            difference |= _compared(expected, run(images), images, request)
    return difference, origin


def _check_parts(request: Request, network: ExportedNetwork) -> None:
    """Raise if a runtime does not load what a detector is made of."""
    regional = (RegionalCrossAttention, RegionalDynamicConv)
    is_regional = any(isinstance(x, regional) for x in network.modules())
    if request.kind == 'openvino' and request.dynamic and is_regional:
        raise UserError(
            f'{type(network.model).__name__} cannot be exported to OpenVINO '
            "for all sizes, since it does not load HPR's refiners then; leave "
            'out --dynamic, or write --format onnx'
        )


_SMALLEST = 256  # two points on the fifth level


def _example(shape: tuple[int, int]) -> tuple[int, int]:
    """Size of traced images: all sides differ, and none of a level is 1.

    torch takes equal sides for one, and a side of 1 for fixed.
    """
    height, width = (max(side, _SMALLEST) for side in shape)
    return height, width + 96 * (height == width)


def _compared(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    images: np.ndarray,
    request: Request,
) -> Difference:
    """Compare a batch; raise if the file detects something else."""
    tolerance = HALF if request.half else Tolerance()
    shape = images.shape[2], images.shape[3]
    difference = compare(expected, found, shape, tolerance)
    if difference.exceeds(tolerance):
        raise UserError(
            f'The {request.kind} file differs from PyTorch and is not kept: '
            f'in {len(images)} image(s) of {shape[0]} x {shape[1]} '
            f'{difference.missing} of {difference.total} detections have no '
            'counterpart'
        )
    return difference


@torch.no_grad()
def _detect(network: ExportedNetwork, images: np.ndarray) -> list[np.ndarray]:
    return [x.numpy() for x in network(torch.from_numpy(images))]


@contextmanager
def _kept_if_good(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Write files beside their places, and move them if no error is raised."""
    folder = files[-1].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.') as beside:
            written = [Path(beside) / path.name for path in files]
            yield written
            for source, path in zip(written, files, strict=True):
                os.replace(source, path)
    except OSError as error:
        raise UserError(
            f'{files[-1]} cannot be written: {error.strerror or error}.'
        ) from error


def _pictures(detector: Detector) -> tuple[list[Image.Image], str]:
    """Two images of the test dataset, else drawn ones."""
    try:
        dataset = detector.test_dataset()
        paths = [dataset.get_data_info(i)['img_path'] for i in range(2)]
        pictures = [Image.open(path).convert('RGB') for path in paths]
    except (UserError, OSError, IndexError):
        scenes = [draw_scene(640, [0, number]).image for number in range(2)]
        return [Image.fromarray(scene) for scene in scenes], 'drawn images'
    return pictures, 'images of the test dataset'


def _batches(
    pictures: Sequence[Image.Image], shape: tuple[int, int], dynamic: bool
) -> Iterator[np.ndarray]:
    """Yield batches of three sizes, the last also with two images."""
    if not dynamic:
        yield _batch(pictures[:1], shape)
        return
    side = min(shape)
    shapes = (
        (side, side * 4 // 3),
        (side * 5 // 4, side),
        (side + side // 8 + 1, side + 1),
    )
    for each in shapes:
        yield _batch(pictures[:1], each)
    yield _batch(pictures, shapes[-1])


def _batch(
    pictures: Sequence[Image.Image], shape: tuple[int, int]
) -> np.ndarray:
    """Resize images: (n, 3, h, w), from 0 to 255."""
    size = shape[::-1]
    resized = [np.asarray(picture.resize(size)) for picture in pictures]
    return np.stack(resized).astype(np.float32).transpose(0, 3, 1, 2).copy()
