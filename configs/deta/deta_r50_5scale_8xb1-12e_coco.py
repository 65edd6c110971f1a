# 8 images in a batch: detrex's recipe of half the learning rate.
_base_ = './deta_r50_5scale_8xb2-12e_coco-detrex.py'
model = dict(backbone=dict(frozen_stages=0))
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)
max_iters = 180000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters, milestones=[150000])
]
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
