# COCO 2017 as DETR's code trains and tests on it, and so the authors of
# H-DETR, DETA, DN-DETR and Anchor DETR; docs/data.md tells what others do.

# Moves every path below, also as `--cfg-options data_root=...`.
data_root = 'data/coco/'
# Names of the classes to detect; None takes COCO's own 80.
classes = None

# Keeps boxes under a pixel, which mmdet's CocoDataset leaves out.
dataset_type = 'DETRCocoDataset'
backend_args = None

scales = [(short_side, 1333) for short_side in range(480, 801, 32)]
# Rounds the long side down, as DETR; mmdet's Resize rounds as detectron2.
resize_type = 'DETRResize'
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
                    resize_type=resize_type,
                    keep_ratio=True,
                    backend=resize_backend,
                )
            ],
            [
                dict(
                    type='RandomChoiceResize',
                    # The short side counts. The limit, which no photograph
                    # reaches, is there to save memory.
                    scales=[(400, 60000), (500, 60000), (600, 60000)],
                    resize_type=resize_type,
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
                    resize_type=resize_type,
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
        type=resize_type,
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
    # No batch_sampler: batches take images of any shape as they come.
    drop_last=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # Images without objects are trained on, too.
        filter_cfg=dict(filter_empty_gt=False, filter_ignored=False),
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
    # mmdet's CocoMetric, much faster where hotcoco is installed.
    type='FastCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric='bbox',
    format_only=False,
    backend_args=backend_args,
)
test_evaluator = val_evaluator
