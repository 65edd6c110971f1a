# Copyright (c) mmdetr authors. All rights reserved.
"""Names of the metrics of mmdet's ``CocoMetric``."""

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
"""Metrics of boxes and masks."""
RECALL_ITEMS = (
    'AR@100',
    'AR@300',
    'AR@1000',
    'AR_s@1000',
    'AR_m@1000',
    'AR_l@1000',
)
"""Metrics of proposals."""
