# detrex's GIoU, with an epsilon in its divisions, for loss and matching.
detrex_loss_iou = dict(type='NormalizedGIoULoss', eps=1e-6, loss_weight=2.0)
detrex_match_costs = [
    dict(type='FocalLossCost', weight=2.0, eps=1e-8),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='NormalizedGIoUCost', weight=2.0, eps=1e-6),
]
