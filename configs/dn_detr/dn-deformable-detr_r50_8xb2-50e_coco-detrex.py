# The numerics of detrex, see dn-detr_r50_8xb2-50e_coco-detrex.py.
_base_ = './dn-deformable-detr_r50_8xb2-50e_coco.py'
model = dict(
    uniform_anchors=True,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
    test_cfg=dict(max_per_img=300),
)
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0)),
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))

# Iterations of 16 images, 7500 of which detrex calls an epoch.
max_iters = 375000
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
        milestones=[300000],
        gamma=0.1,
    )
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
