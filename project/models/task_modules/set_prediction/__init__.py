# Copyright (c) mmdetr authors. All rights reserved.
from .batch_hungarian_assigner import BatchHungarianAssigner
from .pairing import (
    AssignedByPriors,
    GivenPairs,
    HungarianMatching,
    PendingMatch,
)
from .prediction_set import PredictionSet, Scoring
from .protocols import (
    ClassificationLoss,
    Pairing,
    PriorAssigner,
)
from .structures import (
    MatchedPairs,
    PairContext,
    PairTerms,
    Predictions,
    SetTargets,
)

__all__ = [
    'AssignedByPriors',
    'BatchHungarianAssigner',
    'ClassificationLoss',
    'GivenPairs',
    'HungarianMatching',
    'MatchedPairs',
    'PairContext',
    'PairTerms',
    'Pairing',
    'PendingMatch',
    'PredictionSet',
    'Predictions',
    'PriorAssigner',
    'Scoring',
    'SetTargets',
]
