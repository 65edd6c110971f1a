# Copyright (c) mmdetr authors. All rights reserved.
"""Trained detectors, loaded from a checkpoint."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor

from project.apis.detections import Detections
from project.apis.images import is_path, pixels_of
from project.apis.preparation import Preparation
from project.checkpoints.start_checks import check_checkpoint
from project.preflight import check_data, check_model
from project.preflight.config_files import read_config_file
from project.preflight.config_tree import dataset_classes, leaf_datasets
from project.preflight.trained_config import read_meta, trained_config
from project.preflight.variables import resolve_config
from project.utils.accelerators import check_device
from project.utils.errors import UserError
from project.utils.finite import check_finite

DEFAULT_SCORE_THR = 0.3
"""Same as ``pred_score_thr`` of mmdet's ``DetInferencer``."""


def load_detector(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    device: str | None = None,
) -> 'Detector':
    """Load a trained detector.

    Args:
        checkpoint: Path or URL of the weights.
        config: The config that it was trained with, or its path. By default
            the one in the checkpoint or next to it in its work dir, which is
            parsed as data and never executed; for a converted checkpoint the
            shipped config that it fits.
        device: Such as ``'cpu'`` or ``'cuda'``. By default an accelerator
            if there is one.

    Returns:
        Detector: The detector, to be called with images.

    Raises:
        UserError: If the checkpoint does not fit the config, either cannot
            be read, or there is no such device.
    """
    checkpoint = os.fspath(checkpoint)
    if device is not None:
        check_device(str(device))
    if config is None:
        content = trained_config(checkpoint)
    elif isinstance(config, Config):
        content = config
    else:
        content = read_config_file(os.fspath(config))
    content = resolve_config(content)
    check_model(content)
    init_default_scope(content.get('default_scope', 'mmdet'))
    if 'backbone' in content.model:
        content.model.backbone.init_cfg = None
    model = MODELS.build(content.model)
    weights = check_checkpoint(checkpoint, model)
    check_finite(weights, checkpoint, 'there is nothing to look at')
    load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    classes = class_names(checkpoint, content)
    return Detector(
        model.to(device or get_device()).eval(), content, tuple(classes)
    )


def class_names(checkpoint: str, config: Config) -> Sequence[str]:
    """Find the class names of a trained detector.

    Args:
        checkpoint: Path or URL of the weights.
        config: A complete config.

    Returns:
        Sequence[str]: The names in the checkpoint, else those of the
        config's test dataset, else the class indices.

    Raises:
        UserError: If their number is not that of the model's classes.
    """
    meta = read_meta(checkpoint)
    saved = meta.get('dataset_meta') or {}
    saved = {str(key).lower(): value for key, value in saved.items()}
    names = saved.get('classes') or meta.get('CLASSES')
    if not names:
        datasets = leaf_datasets(config, 'test')
        names = next((dataset_classes(x) for _, x in datasets), None)
    head = config.model.get('bbox_head') or {}
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    if not names:
        return [str(number) for number in range(num_classes or 0)]
    if num_classes not in (None, len(names)):
        raise UserError(
            f'{checkpoint} names {len(names)} classes and the model has '
            f'{num_classes}.'
        )
    return [str(name) for name in names]


class Detector:
    """A trained detector that takes images of any kind.

    Several threads may call it: they prepare their images in parallel and
    take turns at the model.

    Attributes:
        model (BaseModel): The model, in evaluation mode.
        config (Config): The config that it was built from.
        classes (tuple[str]): Names of the classes.
        prepare (Preparation): The test pipeline.
    """

    def __init__(
        self, model: BaseModel, config: Config, classes: tuple[str, ...]
    ) -> None:
        self.model = model
        self.config = config
        self.classes = classes
        self.prepare = Preparation(config)
        self._lock = threading.Lock()

    def __call__(
        self,
        images: Any,
        score_thr: float = DEFAULT_SCORE_THR,
        *,
        batch_size: int = 1,
        channel_order: str = 'rgb',
        num_decoder_layers: int | None = None,
    ) -> Any:
        """Detect objects.

        Args:
            images: A path or URL, a PIL image, an array or a tensor (see
                :func:`~project.apis.images.pixels_of`), or a list of these;
                a tensor with four dimensions counts as a list.
            score_thr: The lowest score that is returned, from 0 to 1. With 0
                all predictions are returned, as by mmdet's inferencer.
            batch_size: Images per forward pass. They are padded to one size,
                which changes the results slightly.
            channel_order: Channel order of arrays and tensors: ``'rgb'``, or
                ``'bgr'`` as in OpenCV.
            num_decoder_layers: Decoder layers, of which the last detects. By
                default as in ``test_cfg``, which is all.

        Returns:
            Detections | list[Detections]: A list if ``images`` is a list.

        Raises:
            UserError: If an image cannot be read, or an argument is out of
                range.
        """
        if not 0 <= score_thr <= 1:
            raise UserError(
                f'score_thr is {score_thr!r}; expected a number from 0 to 1.'
            )
        if batch_size < 1:
            raise UserError(
                f'batch_size is {batch_size!r}; expected at least 1.'
            )
        if isinstance(images, Tensor) and images.ndim == 4:
            images = list(images)
        is_list = isinstance(images, (list, tuple))
        images = images if is_list else [images]
        found: list[Detections] = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            found += self._detect(
                batch, score_thr, channel_order, num_decoder_layers
            )
        return found if is_list else found[0]

    def detect(
        self, prepared: Sequence[dict], num_decoder_layers: int | None = None
    ) -> list[DetDataSample]:
        """Run the model on a batch.

        Args:
            prepared: Result of ``prepare`` for each image.
            num_decoder_layers: As for calling the detector.

        Returns:
            list[DetDataSample]: Each with ``pred_instances``.
        """
        with (
            self._lock,
            torch.no_grad(),
            _ending_after(self.model, num_decoder_layers),
        ):
            return self.model.test_step(pseudo_collate(list(prepared)))

    def test_dataset(self) -> BaseDataset:
        """Build the test dataset of the config.

        Raises:
            UserError: If its data cannot be read.
        """
        check_data(self.config, ['test'])
        return DATASETS.build(self.config.test_dataloader.dataset)

    def _detect(
        self,
        images: Sequence,
        score_thr: float,
        channel_order: str,
        num_decoder_layers: int | None,
    ) -> Iterator[Detections]:
        """Detect objects in one batch."""
        sources: list[str | np.ndarray] = [
            str(image) if is_path(image) else pixels_of(image, channel_order)
            for image in images
        ]
        samples = self.detect(
            [self.prepare(source) for source in sources], num_decoder_layers
        )
        for sample, source in zip(samples, sources, strict=True):
            found = Detections.of(
                sample.pred_instances,
                self.classes,
                size=sample.ori_shape[1::-1],
                source=source,
            )
            yield found.above(score_thr)


def num_layers_to_choose(model: BaseModel) -> int:
    """Number of decoder layers that can detect; 1 if it is the last only."""
    head = getattr(model, 'bbox_head', None)
    settings = getattr(head, 'default_settings', None)
    if not hasattr(settings, 'num_decoder_layers'):
        return 1
    return len(model.decoder.layers)


@contextlib.contextmanager
def _ending_after(model: BaseModel, number: int | None) -> Iterator[None]:
    """Let an earlier decoder layer detect.

    Raises:
        UserError: If there is none to choose.
    """
    if number is None:
        yield
        return
    num_layers = num_layers_to_choose(model)
    if not 1 <= number <= num_layers:
        raise UserError(
            f'num_decoder_layers is {number}; expected a number from 1 to '
            f'{num_layers} for this {type(model).__name__}.'
        )
    with model.bbox_head.ending_after(number):
        yield
