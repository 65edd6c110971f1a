# The demo's size and schedule for a DN-Deformable-DETR. Together with
# dn-deformable-detr_r18_no-dn_2xb2-10e_shapes.py it shows what denoising does.
_base_ = './h-detr_r18_2xb2-10e_shapes.py'

model = dict(
    _delete_=True,
    type='DNDeformableDETR',
    num_queries=60,  # 300
    num_feature_levels=_base_.num_levels,
    dn_cfg=dict(
        label_noise_scale=0.2,
        box_noise_scale=0.4,
        group_cfg=dict(dynamic=False, num_groups=5),
    ),
    uniform_anchors=True,
    inverse_sigmoid_eps=1e-3,
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    encoder=_base_.model.encoder,
    decoder=dict(
        num_layers=3,  # 6
        layer_cfg=_base_.model.decoder.layer_cfg,
    ),
    positional_encoding=_base_.model.positional_encoding,
    bbox_head=dict(
        type='DenoisingHead',
        num_classes=7,
        embed_dims=_base_.embed_dims,
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
