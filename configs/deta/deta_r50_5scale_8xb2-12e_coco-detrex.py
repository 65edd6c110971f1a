# The numerics, data and schedule of detrex, and the optimizer of the training
# script in its projects/deta (specifics in README.md).
_base_ = './deta_r50_5scale_8xb2-12e_coco.py'
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
optim_wrapper = dict(clip_grad=None)

# As really run: iterations of 16 images. The 117,266 images with objects make
# 7,329 of them, so "12 epochs" are 12.3.
max_iters = 90000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[75000],
        gamma=0.1,
    )
]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0)),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
