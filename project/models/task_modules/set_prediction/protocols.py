# Copyright (c) mmdetr authors. All rights reserved.
"""What the parts of set prediction have to offer each other."""

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
    """Pairs that the host finds from tensors of the device."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Sequence[Tensor]: What has to travel to the host.

        It is of one precision there: float32 holds integers up to 2**24.
        """
        ...

    def solve(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Find the pairs.

        Args:
            arrays (Sequence[ndarray]): :attr:`tensors` on the host.

        Returns:
            ndarray: Rows of layer, image, query and target, integers, has
            shape (4, num_pairs).
        """
        ...


class Pairing(Protocol):
    """How predictions find the targets that they learn."""

    def start(
        self, predictions: Predictions, targets: SetTargets
    ) -> MatchedPairs | PendingPairs:
        """Do what the device does, without waiting for it.

        Args:
            predictions (Predictions): Predictions.
            targets (SetTargets): Ground truth.

        Returns:
            MatchedPairs | PendingPairs: The pairs if they are known, or
            else what the host finds them from. All sets of a training step
            travel together.
        """
        ...

    def copies(self, num_layers: int) -> list[int]:
        """How often each target is meant to be paired in each layer.

        Args:
            num_layers (int): Layers of the predictions.

        Returns:
            list[int]: Once, unless a subclass has it otherwise.
        """
        return [1] * num_layers


@runtime_checkable
class PriorAssigner(Protocol):
    """Assigns queries by boxes that are known before any prediction."""

    def choose(self, priors: Tensor, targets: SetTargets) -> Tensor:
        """Choose the queries of each target, without waiting for the device.

        Args:
            priors (Tensor): Boxes (cx, cy, w, h) in [0, 1] that stand for
                the queries, has shape (bs, num_queries, 4).
            targets (SetTargets): Ground truth.

        Returns:
            Tensor: Queries of each target, -1 where there are no more, has
            shape (num_gts, max_per_gt).
        """
        ...


@runtime_checkable
class PositiveSampler(Protocol):
    """Keeps some of the positives of an assigner."""

    def keep_positives(self, positive: Tensor) -> Tensor:
        """Tell which positives are kept; both have shape (num_boxes, )."""
        ...


@runtime_checkable
class BatchedCost(Protocol):
    """A match cost that is computed for all layers of an image at once."""

    def batched_cost(self, inputs: CostInputs) -> Tensor:
        """Compute the cost, has shape (num_preds, num_gts)."""
        ...


@runtime_checkable
class ClassificationLoss(Protocol):
    """Classification loss in two parts, of which one needs no matching."""

    def negative(self, scores: Tensor) -> Tensor:
        """Loss if no query has an object.

        Args:
            scores (Tensor): Logits, has shape
                (num_layers, bs, num_queries, num_classes).

        Returns:
            Tensor: Sum for each layer, has shape (num_layers, ).
        """
        ...

    def pair_terms(self, scores: Tensor, context: PairContext) -> PairTerms:
        """What matched queries add to :meth:`negative`.

        Args:
            scores (Tensor): Logits of the matched queries at the classes of
                their targets, has shape (num_pairs, ).
            context (PairContext): The pairs and their boxes, for losses
                whose targets depend on how well a box fits.

        Returns:
            PairTerms: Of each pair.
        """
        ...
