# An H-DETR of a few seconds on the smallest shapes dataset. Nothing in it is
# left to chance (no dropout, no augmentation), and nothing depends on how
# images share a batch (one size, frozen norms, no sorting by aspect ratio).
_base_ = [
    '../../../configs/_base_/datasets/shapes.py',
    '../../../configs/_base_/schedules/detr_12e.py',
    '../../../configs/_base_/default_runtime.py',
]

embed_dims = 32

model = dict(
    type='HDETR',
    num_queries=10,
    num_feature_levels=2,
    with_box_refine=True,
    as_two_stage=True,
    mixed_selection=True,
    one2many=dict(num_queries=10, num_copies=2, loss_weight=1.0),
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        out_indices=(2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[32, 64],
        out_channels=embed_dims,
        kernel_size=1,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=8),
        num_outs=2,
    ),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(
                embed_dims=embed_dims, num_heads=4, num_levels=2, dropout=0.0
            ),
            ffn_cfg=dict(
                embed_dims=embed_dims, feedforward_channels=64, ffn_drop=0.0
            ),
        ),
    ),
    decoder=dict(
        num_layers=2,
        return_intermediate=True,
        look_forward_twice=True,
        layer_cfg=dict(
            self_attn_cfg=dict(
                embed_dims=embed_dims, num_heads=4, dropout=0.0
            ),
            cross_attn_cfg=dict(
                embed_dims=embed_dims, num_heads=4, num_levels=2, dropout=0.0
            ),
            ffn_cfg=dict(
                embed_dims=embed_dims, feedforward_channels=64, ffn_drop=0.0
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
            loss_weight=2.0,
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
    test_cfg=dict(max_per_img=20),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
