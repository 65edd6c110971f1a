# detrex's recipe: its constants, its data, and no weight decay on norms.
_base_ = [
    '../_base_/models/anchor-detr_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_375k.py',
]
model = dict(
    inverse_sigmoid_eps=1e-3,
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
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)
