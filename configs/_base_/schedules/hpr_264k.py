_base_ = './hpr_88k.py'

max_iters = 264000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[205300, 249300],
        gamma=0.1,
    )
]
