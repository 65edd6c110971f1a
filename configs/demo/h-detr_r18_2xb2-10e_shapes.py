# An H-DETR small enough to learn from random weights in ten minutes on two
# cores; `make demo` runs it. Beside the published settings stand those that a
# pretrained backbone and 100,000 images allow.
_base_ = [
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/default_runtime.py',
]

randomness = dict(seed=0, diff_rank_seed=False)
embed_dims = 128  # 256
num_heads = 4  # 8
num_levels = 3  # 4

model = dict(
    type='HDETR',
    num_queries=60,  # 300
    num_feature_levels=num_levels,
    with_box_refine=True,
    as_two_stage=True,
    mixed_selection=True,
    # A larger group (1500 queries, 6 copies, weight 1.0) makes duplicates
    # likelier for longer than this training lasts.
    one2many=dict(num_queries=60, num_copies=2, loss_weight=0.5),
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=32,  # 64
        num_stages=4,
        out_indices=(1, 2, 3),
        # Nothing is frozen, and batches of two images have no use for BN.
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        zero_init_residual=False,
        style='pytorch',
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[64, 128, 256],
        kernel_size=1,
        out_channels=embed_dims,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=num_levels,
    ),
    encoder=dict(
        num_layers=1,  # 6
        layer_cfg=dict(
            self_attn_cfg=dict(
                embed_dims=embed_dims,
                num_heads=num_heads,
                num_levels=num_levels,
                dropout=0.0,
            ),
            ffn_cfg=dict(
                embed_dims=embed_dims, feedforward_channels=256, ffn_drop=0.0
            ),
        ),
    ),
    decoder=dict(
        num_layers=3,  # 6
        return_intermediate=True,
        look_forward_twice=True,
        layer_cfg=dict(
            self_attn_cfg=dict(
                embed_dims=embed_dims, num_heads=num_heads, dropout=0.0
            ),
            cross_attn_cfg=dict(
                embed_dims=embed_dims,
                num_heads=num_heads,
                num_levels=num_levels,
                dropout=0.0,
            ),
            ffn_cfg=dict(
                embed_dims=embed_dims, feedforward_channels=256, ffn_drop=0.0
            ),
        ),
    ),
    positional_encoding=dict(
        num_feats=embed_dims // 2, normalize=True, offset=-0.5
    ),
    bbox_head=dict(
        type='HDETRHead',
        num_classes=7,
        embed_dims=embed_dims,
        sync_cls_avg_factor=True,
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=4.0,  # 2.0
        ),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='BatchHungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)

# Images as small as these are read faster than they are passed on.
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(
    optimizer=dict(lr=7e-4),  # 2e-4
    paramwise_cfg=dict(
        custom_keys={
            # No weight is pretrained: all learn at the same rate.
            'backbone': dict(lr_mult=1.0),
            'sampling_offsets': dict(lr_mult=1.0),
            'reference_points': dict(lr_mult=1.0),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
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
    checkpoint=dict(interval=5, max_keep_ckpts=1),
)
