# As in mmdet's projects/AlignDETR, which the published weights come from.
_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/coco_detection_detr_cv2.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='AlignDETR',
    backbone=dict(
        frozen_stages=0, norm_cfg=dict(type='FrozenBN', requires_grad=False)
    ),
    neck=dict(bias=True),
    positional_encoding=dict(offset=-0.5, temperature=10000),
    bbox_head=dict(
        type='AlignDETRHead',
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
    ),
    train_cfg=dict(assigner=dict(type='MixedHungarianAssigner')),
)

# All processes draw the same noise, as by mmdet's default.
randomness = dict(diff_rank_seed=False)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=2000
    ),
    *_base_.param_scheduler,
]
