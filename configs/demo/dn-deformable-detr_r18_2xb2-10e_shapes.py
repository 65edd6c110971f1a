# The demo's size and schedule for a DN-Deformable-DETR. Together with
# dn-deformable-detr_r18_no-dn_2xb2-10e_shapes.py it shows what denoising does.
_base_ = './h-detr_r18_2xb2-10e_shapes.py'
embed_dims = 128  # 256
num_heads = 4  # 8
num_levels = 3  # 4

model = dict(
    _delete_=True,
    type='DNDeformableDETR',
    num_queries=60,  # 300
    num_feature_levels=num_levels,
    dn_cfg=dict(
        label_noise_scale=0.2,
        box_noise_scale=0.4,
        group_cfg=dict(dynamic=False, num_groups=5),
    ),
    uniform_anchors=True,
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
        base_channels=32,  # 64
        num_stages=4,
        out_indices=(1, 2, 3),
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
        type='DenoisingHead',
        num_classes=7,
        embed_dims=embed_dims,
        sync_cls_avg_factor=True,
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=2.0,  # 1.0
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
train_cfg = dict(val_interval=1)
