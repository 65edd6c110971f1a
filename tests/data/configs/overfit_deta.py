# The overfitting H-DETR's sizes with DETA's assignment and suppression in both
# stages, and with five levels: the anchors of three are small.
_base_ = './overfit_h-detr.py'

num_levels = 5
model = dict(
    _delete_=True,
    type='DETA',
    num_queries=100,
    num_feature_levels=num_levels,
    with_box_refine=True,
    as_two_stage=True,
    proposal_selector=dict(type='LevelNMSSelector'),
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    encoder=_base_.model.encoder,
    decoder=_base_.model.decoder,
    positional_encoding=_base_.model.positional_encoding,
    bbox_head=_base_.model.bbox_head,
    train_cfg=dict(
        first_stage_assigner=dict(
            type='TopKIoUAssigner',
            pos_iou_thr=0.7,
            sampler=dict(type='CappedRandomSampler', num=256),
        ),
        second_stage_assigner=dict(
            type='TopKIoUAssigner',
            pos_iou_thr=0.6,
            sampler=dict(type='CappedRandomSampler', pos_fraction=0.25),
        ),
        assigner=_base_.model.train_cfg.assigner,
    ),
    test_cfg=dict(max_per_img=100, nms=dict(type='nms', iou_threshold=0.7)),
)
model['neck'].num_outs = num_levels
model['encoder'].layer_cfg.self_attn_cfg.num_levels = num_levels
model['decoder'].layer_cfg.cross_attn_cfg.num_levels = num_levels
model['decoder'].look_forward_twice = False
model['bbox_head'].type = 'DETAHead'

# Several queries for each object: half the epochs will do.
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
