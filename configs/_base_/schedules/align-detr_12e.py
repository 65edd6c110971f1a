_base_ = ['./dino_12e.py', './warm_up.py']

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
param_scheduler = [_base_.warm_up, *_base_.param_scheduler]
