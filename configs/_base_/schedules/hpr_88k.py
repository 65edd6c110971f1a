# Iterations of 16 images, of which the data re-augmentation makes 32: 88,000
# are the 12 epochs of the images with objects.
_base_ = './dino_12e.py'

max_iters = 88000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=8000,
)
param_scheduler = [
    dict(
        _base_.param_scheduler[0],
        end=max_iters,
        by_epoch=False,
        milestones=[80000],
    )
]
