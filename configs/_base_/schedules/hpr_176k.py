_base_ = './hpr_88k.py'

max_iters = 176000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[117300, 161300],
        gamma=0.1,
    )
]
