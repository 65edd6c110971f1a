# Epochs of 16 images a step, of which the data re-augmentation makes 32.
_base_ = ['./detr_12e.py', '../default_runtime.py']

randomness = dict(seed=681328528)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True, custom_keys={'backbone': dict(lr_mult=0.1)}
    ),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=4))
