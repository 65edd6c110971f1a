# Iterations of 16 images, 7,500 of which detrex calls an epoch. The 117,266
# images with objects make 7,329, so "12 epochs" are 12.3.
_base_ = './detr_12e.py'

max_iters = 90000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
)
param_scheduler = [
    dict(
        _base_.param_scheduler[0],
        end=max_iters,
        by_epoch=False,
        milestones=[82500],
    )
]
