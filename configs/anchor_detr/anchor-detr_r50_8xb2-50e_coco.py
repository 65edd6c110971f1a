# The published numbers are detrex's, and so are the constants.
_base_ = [
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='AnchorDETR',
    num_queries=900,
    num_patterns=3,
    inverse_sigmoid_eps=1e-3,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[2048],
        kernel_size=1,
        out_channels=256,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=1,
    ),
    encoder=dict(
        num_layers=6,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
            ffn_cfg=dict(
                embed_dims=256, feedforward_channels=1024, ffn_drop=0.0
            ),
        ),
    ),
    decoder=dict(
        num_layers=6,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
            ffn_cfg=dict(
                embed_dims=256, feedforward_channels=1024, ffn_drop=0.0
            ),
        ),
    ),
    bbox_head=dict(
        type='AnchorDETRHead',
        num_classes=80,
        sync_cls_avg_factor=True,
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=2.0,
        ),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='NormalizedGIoULoss', eps=1e-6, loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='BatchHungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='NormalizedGIoUCost', weight=2.0, eps=1e-6),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)

# Iterations of 16 images; 7500 of them are called an epoch. The 117,266
# images with objects make 7,329, so "50 epochs" are 51.2.
max_iters = 375000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[300000],
        gamma=0.1,
    )
]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0)),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
