# Copyright (c) mmdetr authors. All rights reserved.
"""Protocols of the parts of set prediction."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from .structures import (
    CostInputs,
    MatchedPairs,
    PairContext,
    PairTerms,
    Predictions,
    SetTargets,
)


class PendingPairs(Protocol):
    """Pairs that the host computes from tensors of the device."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Sequence[Tensor]: Tensors that the host needs.

        They are copied as float32 or float64; float32 holds integers up to
        2**24.
        """
        ...

    def solve(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Find the pairs.

        Args:
            arrays (Sequence[ndarray]): :attr:`tensors` on the host.

        Returns:
            ndarray: Layers, images, queries and targets, integers, has
            shape (4, num_pairs).
        """
        ...


class Pairing(Protocol):
    """How predictions are paired with targets."""

    def start(
        self, predictions: Predictions, targets: SetTargets
    ) -> MatchedPairs | PendingPairs:
        """Do the computations of the device, without synchronization.

        Args:
            predictions (Predictions): Predictions.
            targets (SetTargets): Ground truth.

        Returns:
            MatchedPairs | PendingPairs: The pairs if they are known, or the
            inputs from which the host computes them.
        """
        ...

    def copies(self, num_layers: int) -> list[int]:
        """Wanted number of pairs of each target in each layer.

        Args:
            num_layers (int): Number of layers.

        Returns:
            list[int]: By default one.
        """
        return [1] * num_layers


@runtime_checkable
class PriorAssigner(Protocol):
    """Assigns queries by their prior boxes."""

    def choose(self, priors: Tensor, targets: SetTargets) -> Tensor:
        """Select the queries of each target, without synchronization.

        Args:
            priors (Tensor): Prior box (cx, cy, w, h) in [0, 1] of each
                query, has shape (bs, num_queries, 4).
            targets (SetTargets): Ground truth.

        Returns:
            Tensor: Queries of each target, padded with -1, has shape
            (num_gts, max_per_gt).
        """
        ...


@runtime_checkable
class PositiveSampler(Protocol):
    """Samples the positives of an assigner."""

    def keep_positives(self, positive: Tensor) -> Tensor:
        """Select positives; both masks have shape (num_boxes, )."""
        ...


@runtime_checkable
class BatchedCost(Protocol):
    """A match cost that is computed for all layers of an image at once."""

    def batched_cost(self, inputs: CostInputs) -> Tensor:
        """Compute the cost, has shape (num_preds, num_gts)."""
        ...


@runtime_checkable
class ClassificationLoss(Protocol):
    """Classification loss in two parts, the first before the matching."""

    def negative(self, scores: Tensor) -> Tensor:
        """Loss of all queries as background.

        Args:
            scores (Tensor): Logits, has shape
                (num_layers, bs, num_queries, num_classes).

        Returns:
            Tensor: Sum for each layer, has shape (num_layers, ).
        """
        ...

    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """Terms that matched queries add to :meth:`negative`.

        Args:
            scores (Tensor): Logits of the matched queries at the classes of
                their targets, has shape (num_pairs, ).
            context (PairContext): The pairs and their boxes, for losses
                whose targets depend on the quality of the boxes.
        """
        ...
