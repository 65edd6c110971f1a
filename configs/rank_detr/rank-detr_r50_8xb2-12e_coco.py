# The authors' code is built on detrex, and so are its constants.
_base_ = '../h_detr/h-detr_r50_8xb2-12e_coco-detrex.py'
model = dict(
    type='RankDETR',
    rank_adaptive_classhead=True,
    query_rank_layer=True,
    bbox_head=dict(
        type='RankDETRHead',
        loss_cls=dict(type='GIoUAwareFocalLoss'),
        enc_loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=2.0,
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            late_match_costs=[dict(type='HighOrderIoUCost', alpha=4.0)],
            late_begin=0.75,
        )
    ),
)

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
        milestones=[82500],
        gamma=0.1,
    )
]
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
