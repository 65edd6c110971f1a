# Copyright (c) mmdetr authors. All rights reserved.
"""What the benchmarks run and how they measure it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from project.preflight.variables import resolve_config


def build_detector(config: Config, device: str) -> BaseDetector:
    """Build the detector of a config, with random weights.

    Args:
        config: A config with a model.
        device: Where it is to run.

    Returns:
        The detector in evaluation mode.
    """
    config = resolve_config(config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    # Neither each initial weight nor that none are pretrained.
    MMLogger.get_current_instance().setLevel('ERROR')
    model = MODELS.build(config.model)
    model.init_weights()
    return model.to(device).eval()


def random_image(
    shape: tuple[int, int], device: str
) -> tuple[Tensor, list[DetDataSample]]:
    """Make one image without padding, as the preprocessor hands it on.

    Args:
        shape: (h, w) in pixels.
        device: Where it is to lie.

    Returns:
        The batch, of shape (1, 3, h, w), and its data sample.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *shape, generator=generator)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=shape,
            ori_shape=shape,
            batch_input_shape=shape,
            pad_shape=shape,
            scale_factor=(1.0, 1.0),
        )
    )
    return image.to(device), [sample]


class Clock:
    """Marks moments, of which two give the seconds between them.

    On a GPU these are CUDA events: nothing waits for the device until they
    are subtracted. Elsewhere the host waits for the device first.

    Args:
        device: Where the work runs.
        of_cpu: Whether it runs with this process's CPU time.
    """

    def __init__(self, device: str, of_cpu: bool = False) -> None:
        self.device = torch.device(device)
        self.has_events = self.device.type == 'cuda' and not of_cpu
        self.read = process_time if of_cpu else perf_counter

    def __call__(self) -> Any:
        """Mark this moment, which may be subtracted from a later one."""
        if self.has_events:
            return Moment(self.device)
        if self.device.type != 'cpu':
            torch.accelerator.synchronize(self.device)
        return self.read()


class Moment:
    """When a GPU reaches this point of its work."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.Event(device, enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: 'Moment') -> float:
        """Seconds since another moment, waiting for this one."""
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1000


def time_in_turn(
    variants: Mapping[str, Callable[[], object]], repeats: int, clock: Clock
) -> dict[str, list[float]]:
    """Run all variants in turn, once to warm up and then ``repeats`` times.

    Args:
        variants: What to run, by name.
        repeats: How often.
        clock: Reads the time.

    Returns:
        Seconds of each run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: times[1:] for name, times in seconds.items()}


def peak_memory(step: Callable[[], object]) -> float:
    """Most that a CPU allocates at once while a step runs, in MiB."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step()
    allocated = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak / 2**20


def total(losses: Iterable[Tensor]) -> Tensor:
    """Sum the terms of a loss."""
    return sum(losses, torch.zeros(()))


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Ratio of runs; those of one turn are neighbours, also in noise."""
    return median(a / b for a, b in zip(seconds, others, strict=True))


class TimedCriterion:
    """A head's criterion, timed forward and backward.

    The predictions are cut from their graph, and the gradients that reach
    them are sent on through a loss that has these gradients.

    Args:
        criterion: Matches prediction sets with targets and gives losses.
        clock: Reads the time.
    """

    def __init__(self, criterion: Callable, clock: Clock) -> None:
        self.criterion = criterion
        self.clock = clock
        self.seconds: list[float] = []

    def __call__(self, sets: Sequence, targets: object) -> dict[str, Tensor]:
        """Compute the losses; the one returned has their gradients."""
        outputs = [
            tensor
            for s in sets
            for tensor in (s.predictions.cls_scores, s.predictions.bbox_preds)
        ]
        leaves = [t.detach().requires_grad_() for t in outputs]
        cut = [
            replace(
                s,
                predictions=replace(
                    s.predictions, cls_scores=scores, bbox_preds=boxes
                ),
            )
            for s, scores, boxes in zip(
                sets, leaves[::2], leaves[1::2], strict=True
            )
        ]
        start = self.clock()
        total(self.criterion(cut, targets).values()).backward()
        self.seconds.append(self.clock() - start)
        carried = (
            (tensor * leaf.grad).sum()
            for tensor, leaf in zip(outputs, leaves, strict=True)
        )
        return dict(loss=total(carried))


def random_batch(
    shape: tuple[int, int],
    batch_size: int,
    num_gts: int,
    num_classes: int,
    device: str,
) -> tuple[Tensor, list[DetDataSample]]:
    """Make images without padding, with random objects.

    Args:
        shape: (h, w) in pixels.
        batch_size: How many images.
        num_gts: Objects of each image.
        num_classes: Of the objects.
        device: Where the batch is to lie.

    Returns:
        The batch, of shape (bs, 3, h, w), and its data samples.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *shape, generator=generator)
    size = torch.tensor(shape[::-1])
    samples = []
    for _ in range(batch_size):
        center, extent = torch.rand(2, num_gts, 2, generator=generator)
        extent = extent * 0.4 + 0.05
        low, high = (center - extent / 2).clamp(0), center + extent / 2
        boxes = torch.cat([low * size, high.clamp(max=1) * size], 1)
        sample = DetDataSample(
            metainfo=dict(img_shape=shape, batch_input_shape=shape)
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.randint(num_classes, (num_gts,), generator=generator),
        )
        samples.append(sample.to(device))
    return images.to(device), samples


def train_step(
    model: BaseDetector, batch: Tensor, samples: list[DetDataSample]
) -> None:
    """Compute the losses and all gradients."""
    model.zero_grad()
    total(model.loss(batch, samples).values()).backward()
