# Copyright (c) mmdetr authors. All rights reserved.
"""Pictures of augmented training images, with their branches."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmengine.dataset import BaseDataset
from torch import Tensor

from project.evaluation.f1 import Boxes
from project.utils.errors import UserError
from project.visualization.detection_sheet import draw_boxes, draw_image

_SIDE, _TITLE, _DPI = 5.0, 0.3, 110  # inches, inches, dots an inch


def draw_training_images(
    dataset: BaseDataset, folder: Path, num_images: int, seed: int = 0
) -> list[Path]:
    """Write pictures of training images, with branches side by side.

    Args:
        dataset: A training set, with or without branches.
        folder: Output folder, which must be empty or not exist.
        num_images: Number of images, evenly spread over the set.
        seed: Seed of the augmentation.

    Returns:
        The files.

    Raises:
        UserError: If the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{folder} is not an empty folder; name another.')
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    picked = np.linspace(
        0, len(dataset) - 1, min(num_images, len(dataset))
    ).round()
    classes, written = dataset.metainfo['classes'], []
    for index in picked.astype(int).tolist():
        panels = list(_panels(dataset[index]))
        stem = Path(getattr(panels[0][2], 'img_path', '') or 'image').stem
        path = folder / f'{index:06d}_{stem}.png'
        _draw(panels, classes, path)
        written.append(path)
    return written


Panel = tuple[str, Tensor, DetDataSample]


def _panels(item: dict[str, Any]) -> Iterator[Panel]:
    """Split an item of a dataset into its branches."""
    inputs, samples = item['inputs'], item['data_samples']
    if isinstance(inputs, dict):
        names = sorted(inputs, key=lambda name: name != 'weak')
        yield from ((name, inputs[name], samples[name]) for name in names)
    else:
        yield 'image', inputs, samples


def _draw(panels: list[Panel], classes: tuple[str, ...], path: Path) -> None:
    """Draw the branches of one image."""
    figure = Figure(figsize=(_SIDE * len(panels), _SIDE + _TITLE))
    FigureCanvasAgg(figure)  # needed to measure the labels
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, image, sample) in zip(axes, panels, strict=True):
        height, width = image.shape[-2:]
        truth = sample.gt_instances
        title = f'{name}, {width} x {height}, {len(truth)} boxes'
        axis.set_title(title, loc='left', fontsize=8, color='#5b6470')
        draw_image(axis, _pixels(image))
        bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        boxes = Boxes(bboxes.numpy().reshape(-1, 4), truth.labels.numpy())
        draw_boxes(axis, boxes, classes)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)


def _pixels(image: Tensor) -> np.ndarray:
    """Convert BGR, (3, h, w), or grey, (1, h, w), to RGB pixels."""
    pixels = image.numpy().transpose(1, 2, 0)[..., ::-1]
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, axis=-1)
    return np.clip(pixels, 0, 255).astype(np.uint8)
