# Copyright (c) mmdetr authors. All rights reserved.
from .detection_report import ReportCocoMetric
from .fast_coco_metric import FastCocoMetric
from .rank_quality import RankQuality

__all__ = ['FastCocoMetric', 'RankQuality', 'ReportCocoMetric']
