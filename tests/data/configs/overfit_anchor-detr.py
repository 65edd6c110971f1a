# Anchor DETR on the handful of photographs of the overfitting H-DETR. Its one
# level is of stride 16: at 32 a map of these small images has 100 pixels.
_base_ = './overfit_h-detr.py'

embed_dims = 128
attention = dict(embed_dims=embed_dims, num_heads=4, dropout=0.0)
ffn = dict(embed_dims=embed_dims, feedforward_channels=256, ffn_drop=0.0)

model = dict(
    _delete_=True,
    type='AnchorDETR',
    num_queries=90,
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
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        zero_init_residual=False,
        style='pytorch',
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[128],
        kernel_size=1,
        out_channels=embed_dims,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=1,
    ),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn),
    ),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn
        ),
    ),
    bbox_head=dict(
        type='AnchorDETRHead',
        num_classes=7,
        embed_dims=embed_dims,
        sync_cls_avg_factor=True,
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=4.0,
        ),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='NormalizedGIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='BatchHungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0, eps=1e-8),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='NormalizedGIoUCost', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)
