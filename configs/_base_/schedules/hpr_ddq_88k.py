# DDQ's own learning rate, weight decay and warm-up.
_base_ = './hpr_88k.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=0.05))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=2000
    ),
    *_base_.param_scheduler,
]
