# Copyright (c) mmdetr authors. All rights reserved.
from .batch_hungarian_assigner import BatchHungarianAssigner, PendingMatch
from .structures import MatchedPairs, PredictionSet, SetTargets

__all__ = [
    'BatchHungarianAssigner',
    'MatchedPairs',
    'PendingMatch',
    'PredictionSet',
    'SetTargets',
]
