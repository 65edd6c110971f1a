# The overfitting H-DETR's sizes for a DINO with HPR's refiners.
_base_ = [
    './overfit_h-detr.py',
    '../../../configs/_base_/models/proposal_refiner.py',
]

embed_dims = 128
model = dict(
    _delete_=True,
    type='HPRDETR',
    use_dn=True,
    num_queries=30,
    num_feature_levels=3,
    aux_weights=_base_.aux_weights,
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_dn_queries=20),
    ),
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    encoder=_base_.model.encoder,
    decoder=_base_.model.decoder,
    positional_encoding=_base_.model.positional_encoding,
    bbox_head=_base_.model.bbox_head,
    train_cfg=_base_.model.train_cfg,
    test_cfg=_base_.model.test_cfg,
)
model['bbox_head'].type = 'HPRDETRHead'
layer_cfg = dict(**_base_.refiners)
layer_cfg['dy_conv_cfg'].update(
    in_channels=embed_dims, feat_channels=16, out_channels=embed_dims
)
layer_cfg['regional_ca_cfg'].update(embed_dims=embed_dims, num_heads=4)
layer_cfg['regional_ca_cfg'].positional_encoding.num_feats = embed_dims // 2
model['decoder'].layer_cfg.update(layer_cfg)
model['decoder'].bbox_roi_extractor = dict(
    _base_.bbox_roi_extractor,
    out_channels=embed_dims,
    featmap_strides=[8, 16, 32],
)

# Each object has denoising queries, too: half the epochs will do.
max_epochs = 75
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
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
default_hooks = dict(checkpoint=dict(interval=max_epochs))
