# Copyright (c) mmdetr authors. All rights reserved.
from .batch_hungarian_assigner import BatchHungarianAssigner, PendingMatch
from .structures import (
    MatchedPairs,
    PairContext,
    PredictionSet,
    SetTargets,
)

__all__ = [
    'BatchHungarianAssigner',
    'MatchedPairs',
    'PairContext',
    'PendingMatch',
    'PredictionSet',
    'SetTargets',
]
