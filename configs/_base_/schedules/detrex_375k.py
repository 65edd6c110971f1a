_base_ = './detrex_90k.py'

max_iters = 375000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters, milestones=[300000])
]
