# What Align-DETR changes of DINO, as in mmdet's projects/AlignDETR, which the
# published weights come from.
align = dict(
    backbone=dict(
        frozen_stages=0, norm_cfg=dict(type='FrozenBN', requires_grad=False)
    ),
    neck=dict(bias=True),
    positional_encoding=dict(offset=-0.5, temperature=10000),
    train_cfg=dict(assigner=dict(type='MixedHungarianAssigner')),
)
align_head = dict(
    # Of the six decoder layers and of the encoder.
    all_layers_num_gt_repeat=[2, 2, 2, 2, 2, 1, 2],
    alpha=0.25,
    gamma=2.0,
    tau=1.5,
    loss_cls=dict(
        _delete_=True,
        type='CrossEntropyLoss',
        use_sigmoid=True,
        loss_weight=1.0,
    ),
)
