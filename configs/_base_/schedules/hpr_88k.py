# Iterations of 16 images: 88,000 are the 12 epochs of the images with objects.
_base_ = './hpr_12e.py'

max_iters = 88000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=8000,
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[80000],
        gamma=0.1,
    )
]

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=8000))
log_processor = dict(by_epoch=False)
