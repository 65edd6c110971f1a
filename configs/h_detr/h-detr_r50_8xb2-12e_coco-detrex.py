# The numerics of detrex: it freezes the stem only, skips images without
# objects in training, and has other constants (specifics in README.md).
_base_ = [
    '../_base_/models/h-detr_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_90k.py',
]
model = dict(
    inverse_sigmoid_eps=1e-3,
    backbone=dict(frozen_stages=0),
    bbox_head=dict(
        loss_iou=dict(
            _delete_=True, type='NormalizedGIoULoss', eps=1e-6, loss_weight=2.0
        )
    ),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type='FocalLossCost', weight=2.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='NormalizedGIoUCost', weight=2.0, eps=1e-6),
            ]
        )
    ),
    test_cfg=dict(max_per_img=300),
)
