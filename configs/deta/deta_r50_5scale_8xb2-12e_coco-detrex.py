# The numerics, data and schedule of detrex, and the optimizer of the training
# script in its projects/deta (specifics in README.md).
_base_ = [
    '../_base_/models/deta_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_90k.py',
]
model = dict(
    inverse_sigmoid_eps=1e-3,
    bbox_head=dict(
        loss_iou=dict(
            _delete_=True, type='NormalizedGIoULoss', eps=1e-6, loss_weight=2.0
        )
    ),
    train_cfg=dict(
        first_stage_assigner=dict(iou_eps=1e-6),
        second_stage_assigner=dict(iou_eps=1e-6),
        assigner=dict(
            match_costs=[
                dict(type='FocalLossCost', weight=2.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='NormalizedGIoUCost', weight=2.0, eps=1e-6),
            ]
        ),
    ),
)
optim_wrapper = dict(clip_grad=None)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=90000,
        by_epoch=False,
        milestones=[75000],
        gamma=0.1,
    )
]
