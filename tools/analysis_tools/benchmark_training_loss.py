# Copyright (c) mmdetr authors. All rights reserved.
"""Time what matching and losses take of a training step.

Detectors run in turn, A B C A B C, on the same random images and objects,
forward and backward, without the optimizer. Shares and ratios hold on a busy
machine; the seconds do not. Weights are random.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter

import torch
from benchmark_inference import (
    add_benchmark_arguments,
    build_detector,
    median_ratio,
    time_in_turn,
    waiting_for,
)
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from project.apis import positive_int, read_config
from project.utils.errors import UserError


class TimedCriterion:
    """A head's criterion, timed forward and backward.

    The predictions are cut from their graph, and the gradients that reach
    them are sent on through a loss that has these gradients.

    Args:
        criterion: Matches prediction sets with targets and gives losses.
        wait: Called before the clock is read.
    """

    def __init__(
        self, criterion: Callable, wait: Callable[[], object]
    ) -> None:
        self.criterion = criterion
        self.wait = wait
        self.seconds: list[float] = []

    def __call__(self, sets: Sequence, targets: object) -> dict[str, Tensor]:
        """Compute the losses; the one returned has their gradients."""
        outputs = [t for s in sets for t in (s.cls_scores, s.bbox_preds)]
        leaves = [t.detach().requires_grad_() for t in outputs]
        cut = [
            replace(s, cls_scores=scores, bbox_preds=boxes)
            for s, scores, boxes in zip(
                sets, leaves[::2], leaves[1::2], strict=True
            )
        ]
        self.wait()
        start = perf_counter()
        sum(self.criterion(cut, targets).values()).backward()
        self.wait()
        self.seconds.append(perf_counter() - start)
        carried = (
            (tensor * leaf.grad).sum()
            for tensor, leaf in zip(outputs, leaves, strict=True)
        )
        return dict(loss=sum(carried))


def random_batch(
    args: argparse.Namespace, num_classes: int
) -> tuple[Tensor, list[DetDataSample]]:
    """Make images without padding, with random objects.

    Args:
        args: The command line.
        num_classes: Of the objects.

    Returns:
        The batch, of shape (bs, 3, h, w), and its data samples.
    """
    generator = torch.Generator().manual_seed(0)
    shape = tuple(args.shape)
    images = torch.randn(args.batch_size, 3, *shape, generator=generator)
    size = torch.tensor(shape[::-1])
    samples = []
    for _ in range(args.batch_size):
        center, extent = torch.rand(2, args.gts, 2, generator=generator)
        extent = extent * 0.4 + 0.05
        low, high = (center - extent / 2).clamp(0), center + extent / 2
        boxes = torch.cat([low * size, high.clamp(max=1) * size], 1)
        sample = DetDataSample(
            metainfo=dict(img_shape=shape, batch_input_shape=shape)
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.randint(
                num_classes, (args.gts,), generator=generator
            ),
        )
        samples.append(sample.to(args.device))
    return images.to(args.device), samples


def train_step(
    model: nn.Module, batch: Tensor, samples: list[DetDataSample]
) -> None:
    """Compute the losses and all gradients."""
    model.zero_grad()
    sum(model.loss(batch, samples).values()).backward()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_benchmark_arguments(parser, shape=(320, 320), repeats=5)
    parser.add_argument(
        '--batch-size', type=positive_int, default=2, help='images'
    )
    parser.add_argument(
        '--gts', type=int, default=20, help='objects of each image'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    wait = waiting_for(args.device)
    timers, variants = {}, {}
    try:
        for label, path in enumerate(args.configs, 1):
            name = f'{label}: {path}'
            config = read_config(path, args.cfg_options)
            model = build_detector(config, args.device).train()
            head = model.bbox_head
            timers[name] = TimedCriterion(head.criterion, wait)
            head.criterion = timers[name]
            batch = random_batch(args, head.num_classes)
            variants[name] = partial(train_step, model, *batch)
    except UserError as error:
        sys.exit(f'Error: {error}')
    steps = time_in_turn(variants, args.repeats, wait)
    losses = {name: timer.seconds[1:] for name, timer in timers.items()}
    first = next(iter(losses.values()))
    print('step s | matching and losses s | share | to the first | config')
    for name, seconds in losses.items():
        share = median_ratio(seconds, steps[name])
        print(
            f'{median(steps[name]):6.2f} | {median(seconds):21.4f} | '
            f'{share:5.1%} | {median_ratio(seconds, first):12.3f} | {name}'
        )


if __name__ == '__main__':
    main()
