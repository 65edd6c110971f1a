# COCO 2017 with the augmentation of DETR, shared by the methods built on it.

# Moves every path below, also as `--cfg-options data_root=...`.
data_root = 'data/coco/'
# Names of the classes to detect; None takes COCO's own 80.
classes = None

dataset_type = 'CocoDataset'
backend_args = None

scales = [(short_side, 1333) for short_side in range(480, 801, 32)]
# Pillow smooths when it shrinks, as in the sources of the published figures;
# OpenCV, mmdet's default, does not.
resize_backend = 'pillow'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandomChoiceResize',
                    scales=scales,
                    keep_ratio=True,
                    backend=resize_backend,
                )
            ],
            [
                dict(
                    type='RandomChoiceResize',
                    # The short side counts: no COCO image is 7 times as long.
                    scales=[(400, 4200), (500, 4200), (600, 4200)],
                    keep_ratio=True,
                    backend=resize_backend,
                ),
                dict(
                    type='RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(
                    type='RandomChoiceResize',
                    scales=scales,
                    keep_ratio=True,
                    backend=resize_backend,
                ),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(
        type='Resize',
        scale=(1333, 800),
        keep_ratio=True,
        backend=resize_backend,
    ),
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
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # The authors train on images without objects too; detrex does not.
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric='bbox',
    format_only=False,
    backend_args=backend_args,
)
test_evaluator = val_evaluator
