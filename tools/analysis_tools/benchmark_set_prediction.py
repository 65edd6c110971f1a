# Copyright (c) mmdetr authors. All rights reserved.
"""Time matching and losses against the plain formulation.

Both run in turn, forward and backward, on the same decoder-like outputs, so
that the ratio holds on a busy machine; the seconds do not.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss

from project.models.losses import SetCriterion
from project.models.task_modules import BatchHungarianAssigner
from tests.helpers.plain_set_prediction import (
    PlainSetPrediction,
)
from tests.helpers.set_prediction_batch import (
    SetPredictionBatch,
    make_batch,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--gts', type=int, nargs='+', default=[20, 40, 60])
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--queries', type=int, nargs=2, default=[300, 1500])
    parser.add_argument('--tokens', type=int, default=22223)
    parser.add_argument('--layers', type=int, default=6)
    parser.add_argument('--classes', type=int, default=91)
    parser.add_argument('--copies', type=int, default=6)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def build_criterion() -> SetCriterion:
    """H-DETR's matching and losses, as its config has them."""
    assigner = BatchHungarianAssigner(
        [
            dict(type='FocalLossCost', weight=2.0, eps=1e-8),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ]
    )
    return SetCriterion(
        assigner,
        FocalLoss(use_sigmoid=True, loss_weight=2.0),
        L1Loss(loss_weight=5.0),
        GIoULoss(loss_weight=2.0),
    )


def plain_step(batch: SetPredictionBatch) -> torch.Tensor:
    """Total loss by the plain formulation."""
    plain = PlainSetPrediction()
    total = 0
    for group in batch.groups:
        losses, _ = plain.losses(
            group['scores'],
            batch.boxes(group),
            batch.plain_targets,
            **group['settings'],
        )
        total = total + sum(losses.values())
    return total


def core_step(
    batch: SetPredictionBatch, criterion: SetCriterion
) -> torch.Tensor:
    """Total loss by the set-prediction core."""
    return sum(criterion(batch.sets(), batch.targets()).values())


def time_step(
    step: Callable[[], torch.Tensor], device: str
) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and the loss."""
    start = perf_counter()
    total = step()
    total.backward()
    if device != 'cpu':
        torch.cuda.synchronize(device)
    return perf_counter() - start, total.item()


def compare(
    variants: dict[str, Callable[[], torch.Tensor]], repeats: int, device: str
) -> dict[str, tuple[float, float]]:
    """Median seconds and the loss of each variant, run in turn."""
    results: dict[str, list] = {name: [] for name in variants}
    for _ in range(repeats + 1):  # the first one warms up
        for name, step in variants.items():
            results[name].append(time_step(step, device))
    return {
        name: (median(seconds for seconds, _ in timed[1:]), timed[-1][1])
        for name, timed in results.items()
    }


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    criterion = build_criterion()
    print('GT per image | plain s | core s | plain / core | loss difference')
    for num_gts in args.gts:
        batch = make_batch(
            (num_gts,) * args.batch_size,
            num_queries=tuple(args.queries),
            num_tokens=args.tokens,
            num_layers=args.layers,
            num_classes=args.classes,
            num_copies=args.copies,
            dtype=torch.float32,
        ).to(args.device)
        variants = dict(
            plain=partial(plain_step, batch),
            core=partial(core_step, batch, criterion),
        )
        timed = compare(variants, args.repeats, args.device)
        (plain, plain_loss), (core, core_loss) = timed.values()
        print(
            f'{num_gts:12d} | {plain:7.3f} | {core:6.3f} | '
            f'{plain / core:12.2f} | '
            f'{abs(plain_loss - core_loss) / plain_loss:.1e}'
        )


if __name__ == '__main__':
    main()
