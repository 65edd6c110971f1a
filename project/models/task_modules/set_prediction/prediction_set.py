# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import dataclass, replace

from torch import nn

from .protocols import ClassificationLoss, Pairing
from .structures import Predictions


@dataclass(frozen=True)
class Scoring:
    """How paired predictions are scored.

    Args:
        loss_cls (nn.Module | ClassificationLoss, optional): Classification
            loss. Defaults to that of the criterion.
        loss_iou (nn.Module, optional): IoU loss. Defaults to that of the
            criterion.
        loss_weight (float): Weight of all losses. Defaults to 1.
        normalizer (str, optional): Divisor of the losses, as in
            ``SetCriterion``. Defaults to that of the criterion.
        sync_normalizer (bool): Whether to average it over all ranks. Defaults
            to True.
        per_image (bool): Whether to return a list of losses, one for each
            image, instead of their sum. Defaults to False.
        skip_empty (bool): Whether images without targets have no loss; needs
            ``per_image``. Defaults to False.
    """

    loss_cls: nn.Module | ClassificationLoss | None = None
    loss_iou: nn.Module | None = None
    loss_weight: float = 1.0
    normalizer: str | None = None
    sync_normalizer: bool = True
    per_image: bool = False
    skip_empty: bool = False


@dataclass(frozen=True)
class PredictionSet:
    """Predictions of one group of queries, and how they are trained.

    Args:
        predictions (Predictions): The predictions.
        pairing (Pairing): How they are paired with targets.
        scoring (Scoring): How they are scored. By default with the settings
            of the criterion.
    """

    predictions: Predictions
    pairing: Pairing
    scoring: Scoring = Scoring()

    def of_branch(self, prefix: str, loss_weight: float) -> 'PredictionSet':
        """Make this a set of an auxiliary head.

        Args:
            prefix (str): Prefix of the names of its losses.
            loss_weight (float): Weight of all its losses.
        """
        weight = self.scoring.loss_weight * loss_weight
        return replace(
            self,
            predictions=replace(self.predictions, branch=prefix),
            scoring=replace(self.scoring, loss_weight=weight),
        )
