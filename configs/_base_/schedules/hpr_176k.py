_base_ = './hpr_88k.py'

max_iters = 176000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters, milestones=[117300, 161300])
]
