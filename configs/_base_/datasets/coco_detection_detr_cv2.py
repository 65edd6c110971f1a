# DETR's augmentation with mmdet's choices: OpenCV resizes, sizes are rounded
# half up, images of one orientation make a batch, and neither images without
# objects nor tiny ones are trained on.
_base_ = './coco_detection_detr.py'

dataset_type = 'CocoDataset'

scales = _base_.scales
resize = dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)
train_pipeline = _base_.train_pipeline
train_pipeline[3].transforms = [
    [resize],
    [
        # The short side counts: no COCO image is 7 times as long.
        dict(resize, scales=[(400, 4200), (500, 4200), (600, 4200)]),
        train_pipeline[3].transforms[1][1],
        resize,
    ],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    _base_.test_pipeline[-1],
]

train_dataloader = dict(
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    drop_last=False,
    dataset=dict(
        type=dataset_type,
        filter_cfg=dict(_delete_=True, filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader
