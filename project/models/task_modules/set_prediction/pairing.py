# Copyright (c) mmdetr authors. All rights reserved.
"""Pairing of predictions and targets, with one synchronization for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from project.utils.host_copy import HostCopy, send

from .batch_hungarian_assigner import BatchHungarianAssigner
from .hungarian_assignment import PendingAssignment
from .prediction_set import PredictionSet
from .protocols import Pairing, PriorAssigner
from .structures import MatchedPairs, Predictions, SetTargets


@dataclass(frozen=True)
class HungarianMatching(Pairing):
    """Pairs of the lowest total cost (DETR, section 3.1).

    Args:
        assigner (BatchHungarianAssigner): Computes the costs.
        num_copies (int | Sequence[int]): Number of queries that each target
            is matched to, for all layers or for each. Defaults to 1.
    """

    assigner: BatchHungarianAssigner
    num_copies: int | Sequence[int] = 1

    def start(
        self, predictions: Predictions, targets: SetTargets
    ) -> PendingAssignment:
        """Compute the costs."""
        copies = self.copies(predictions.num_layers)
        return self.assigner.start(predictions, targets, copies)

    def copies(self, num_layers: int) -> list[int]:
        """Copies of each target in each layer."""
        if isinstance(self.num_copies, int):
            return [self.num_copies] * num_layers
        return list(self.num_copies)


@dataclass(frozen=True)
class GivenPairs(Pairing):
    """Known pairs, as in denoising.

    Args:
        pairs (MatchedPairs): The pairs, on the device.
    """

    pairs: MatchedPairs

    def start(
        self, predictions: Predictions, targets: SetTargets
    ) -> MatchedPairs:
        """Return the pairs."""
        return self.pairs


@dataclass(frozen=True)
class AssignedByPriors(Pairing):
    """Pairs by prior boxes, the same in all layers, as in DETA.

    Args:
        assigner (PriorAssigner): Selects the queries of each target.
        priors (Tensor): Prior box (cx, cy, w, h) in [0, 1] of each query,
            has shape (bs, num_queries, 4).
    """

    assigner: PriorAssigner
    priors: Tensor

    def start(
        self, predictions: Predictions, targets: SetTargets
    ) -> '_PendingChoice':
        """Select the queries of each target."""
        choice = self.assigner.choose(self.priors, targets)
        return _PendingChoice(choice, targets.counts, predictions.num_layers)


@dataclass(frozen=True)
class _PendingChoice:
    """Queries of each target, on the device.

    Args:
        choice (Tensor): Result of :meth:`PriorAssigner.choose`.
        counts (Sequence[int]): Number of targets of each image.
        num_layers (int): Number of layers with these pairs.
    """

    choice: Tensor
    counts: Sequence[int]
    num_layers: int

    @property
    def tensors(self) -> list[Tensor]:
        """list[Tensor]: Tensors that the host needs."""
        return [self.choice]

    def solve(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """List the pairs of each layer, sorted by target."""
        (choice,) = arrays
        target, place = np.nonzero(choice >= 0)
        image = np.repeat(np.arange(len(self.counts)), self.counts)[target]
        of_layer = np.stack([image, choice[target, place], target])
        layer = np.repeat(np.arange(self.num_layers), len(target))
        pairs = np.vstack([layer, np.tile(of_layer, self.num_layers)])
        return pairs.astype(np.int64)


class PendingMatch:
    """Asynchronous pairing of all sets of a training step.

    The tensors that the host needs are copied in one asynchronous transfer;
    the pairs are sent back in another.

    Args:
        sets (Sequence[PredictionSet]): The sets to pair.
        targets (SetTargets): Ground truth.
    """

    def __init__(
        self, sets: Sequence[PredictionSet], targets: SetTargets
    ) -> None:
        self.sets = sets
        self._targets = targets
        self._started = [s.pairing.start(s.predictions, targets) for s in sets]
        dtype = targets.bboxes_normalized.dtype
        tensors = [
            tensor.detach().to(dtype)
            for pending in self._started
            if not isinstance(pending, MatchedPairs)
            for tensor in pending.tensors
        ]
        self._shapes = [tensor.shape for tensor in tensors]
        if tensors:
            self._copy = HostCopy(torch.cat([t.flatten() for t in tensors]))

    def result(self) -> list[MatchedPairs]:
        """Wait for the transfer and find the pairs.

        Returns:
            list[MatchedPairs]: Pairs of each set.

        Raises:
            UserError: If a label is out of range, or a cost is NaN.
        """
        arrays = iter(self._arrays())
        self._targets.check_labels()
        tables = [
            np.empty((4, 0), dtype=np.int64)
            if isinstance(pending, MatchedPairs)
            else pending.solve([next(arrays) for _ in pending.tensors])
            for pending in self._started
        ]
        merged = torch.from_numpy(np.concatenate(tables, axis=1))
        merged = send(merged, self._targets.labels.device)
        rows = merged.split([table.shape[1] for table in tables], dim=1)
        return [
            pending
            if isinstance(pending, MatchedPairs)
            else _pairs(of_set, table, s.predictions.num_layers)
            for s, pending, table, of_set in zip(
                self.sets, self._started, tables, rows, strict=True
            )
        ]

    def _arrays(self) -> list[np.ndarray]:
        """The transferred tensors, in their original shapes."""
        if not self._shapes:
            return []
        sizes = [shape.numel() for shape in self._shapes]
        pieces = np.split(self._copy.wait(), np.cumsum(sizes)[:-1])
        return [
            piece.reshape(shape)
            for piece, shape in zip(pieces, self._shapes, strict=True)
        ]


def _pairs(rows: Tensor, table: np.ndarray, num_layers: int) -> MatchedPairs:
    """Build pairs from rows on the device; the host's copy is counted."""
    layer, image, query, target = rows.unbind()
    counts = np.bincount(table[0], minlength=num_layers).tolist()
    return MatchedPairs(layer, image, query, target, counts)
