# What all methods share in tools/analysis_tools/compare_methods.py: data,
# schedule, preprocessing and backbone of a training from random weights.
_base_ = [
    './datasets/shapes.py',
    './schedules/detr_12e.py',
    './default_runtime.py',
]

randomness = dict(seed=0, diff_rank_seed=False)

preprocessor = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=1,
)
# A ResNet-18 of a quarter of the width; the method says which stages it uses.
backbone = dict(
    depth=18,
    base_channels=16,  # 64
    num_stages=4,
    # Nothing is frozen, and small batches have no use for BN.
    norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
    zero_init_residual=False,
    style='pytorch',
)

image_size = 96
# Images as small as these are read faster than they are passed on.
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader

fast_runtime = dict(fused_optimizer=True)

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs)
# One rate for all weights, since none is pretrained.
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(_delete_=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
