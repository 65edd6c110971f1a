# Copyright (c) mmdetr authors. All rights reserved.
from .fast_coco_metric import FastCocoMetric
from .rank_quality import RankQuality

__all__ = ['FastCocoMetric', 'RankQuality']
