# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Iterator
from typing import Any

import torch
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Computes the training loss of the validation images.

    ``val_loss`` and the terms of the last decoder layer (``val_loss_cls``,
    ...) join the metrics of each validation, in the logs and trackers, where
    ``save_best='val_loss'`` finds them. Other query groups and denoising
    queries count as in training; dropout is off, norms stay as in evaluation
    and the noise is the same each time. With ``EMAHook`` it is the loss of
    the averaged weights. The model runs a second time on each image, without
    gradients.

    Ground truth that the pipeline loads after it has resized the image, as
    mmdet's test pipelines do, is resized here. A pipeline that loads none, as
    those of HPR and Align-DETR, does so from the first validation on.
    """

    # Before RuntimeInfoHook, which hands the metrics to the logs.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._num_images = 0
        self._is_loaded_late = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin a validation."""
        self._sums, self._num_images = {}, 0
        leaves = _leaves(runner.val_loop.dataloader.dataset)
        are_late = [_loads_late(leaf) for leaf in leaves]  # each is changed
        self._is_loaded_late = any(are_late)

    @torch.no_grad()
    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: object = None,
    ) -> None:
        """Add the losses of a batch."""
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        data = model.data_preprocessor(data_batch, False)
        samples = data['data_samples']
        if self._is_loaded_late:
            _resize_boxes(samples)
        device = data['inputs'].device
        devices = [] if device.type == 'cpu' else [device]
        kind = 'cuda' if device.type == 'cpu' else device.type
        switched = list(_of_training(model))
        for module in switched:
            module.training = True
        try:
            with torch.random.fork_rng(devices, device_type=kind):
                torch.manual_seed(batch_idx)
                losses = model(data['inputs'], samples, mode='loss')
            _, values = model.parse_losses(losses)
        finally:
            for module in switched:
                module.training = False
        for name, value in values.items():
            if name.startswith('loss'):
                so_far = self._sums.get(name, 0)
                self._sums[name] = so_far + value.double() * len(samples)
        self._num_images += len(samples)

    def after_val_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """Add the means over all images to the metrics."""
        if metrics is None or not self._num_images:
            return
        count = torch.tensor(self._num_images, dtype=torch.float64)
        sums = torch.stack([x.cpu() for x in (*self._sums.values(), count)])
        all_reduce(sums)
        means = (sums[:-1] / sums[-1]).tolist()
        for name, mean in zip(self._sums, means, strict=True):
            metrics[f'val_{name}'] = mean


def _leaves(dataset: Any) -> Iterator[Any]:
    """The datasets below all wrappers."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset


def _loads_late(dataset: Any) -> bool:
    """Whether a dataset resizes its images before it loads annotations.

    Where it loads none, it is made to do so, before it packs them.
    """
    transforms = dataset.pipeline.transforms
    loading = (i for i, x in enumerate(transforms) if _loads(x))
    place = next(loading, None)
    if place is None:
        place = len(transforms) - 1
        transforms.insert(place, LoadAnnotations(with_bbox=True))
    return any('Resize' in type(x).__name__ for x in transforms[:place])


def _loads(transform: Any) -> bool:
    return isinstance(transform, LoadAnnotations)


def _resize_boxes(samples: SampleList) -> None:
    """Bring boxes of the files' images to the resized ones."""
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        factors = boxes.new_tensor(sample.scale_factor)
        sample.gt_instances.bboxes = boxes * factors.repeat(2)


def _of_training(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that compute more in training than in evaluation.

    What is switched off in evaluation, dropout and statistics of norms, is
    in other modules.
    """
    for module in model.modules():
        if isinstance(module, BaseDetector) or getattr(
            module, 'gives_more_in_training', False
        ):
            yield module
