_base_ = ['./hpr_88k.py', './ddq.py']

optim_wrapper = dict(optimizer=_base_.ddq_optimizer)
param_scheduler = [_base_.warm_up, *_base_.param_scheduler]
