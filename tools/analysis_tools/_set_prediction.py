# Copyright (c) mmdetr authors. All rights reserved.
"""Matching and losses, in the package's formulation and the plain one."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from reference.set_prediction import PlainSetPrediction
from reference.set_prediction_batch import SetPredictionBatch

from project.models.losses import SetCriterion


def build_criterion() -> SetCriterion:
    """H-DETR's losses, as its config has them."""
    return SetCriterion(
        FocalLoss(use_sigmoid=True, loss_weight=2.0),
        L1Loss(loss_weight=5.0),
        GIoULoss(loss_weight=2.0),
    )


def plain_step(batch: SetPredictionBatch) -> torch.Tensor:
    """Total loss by the plain formulation."""
    plain = PlainSetPrediction()
    total = torch.zeros(())
    for group in batch.groups:
        losses, _ = plain.losses(
            group['scores'],
            batch.boxes(group),
            batch.plain_targets,
            **group['settings'],
        )
        total = sum(losses.values(), total)
    return total


def core_step(
    batch: SetPredictionBatch, criterion: SetCriterion
) -> torch.Tensor:
    """Total loss by the set-prediction core."""
    losses: dict[str, Any] = criterion(batch.sets(), batch.targets())
    return sum(losses.values(), torch.zeros(()))


def pending_one2many(batch: SetPredictionBatch) -> Any:
    """The matching problems of the set with several queries a target."""
    one2many = batch.sets()[-1]
    return one2many.pairing.start(one2many.predictions, batch.targets())


def time_step(
    step: Callable[[], torch.Tensor], device: str
) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and the loss."""
    start = perf_counter()
    total = step()
    total.backward()
    if device != 'cpu':
        torch.accelerator.synchronize(device)
    return perf_counter() - start, total.item()


def compare(
    variants: Mapping[str, Callable[[], torch.Tensor]],
    repeats: int,
    device: str,
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
