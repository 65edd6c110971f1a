# COCO 2017 as detrex trains and tests on it: sizes are detectron2's, images of
# one orientation make a batch, and those without objects are left out. For
# schedules that count iterations.
_base_ = './coco_detection_detr.py'

resize = dict(
    type='RandomChoiceResize',
    resize_type='AnyDepthResize',
    scales=_base_.scales,
    keep_ratio=True,
    backend=_base_.resize_backend,
)
train_pipeline = _base_.train_pipeline
train_pipeline[3].transforms = [
    [resize],
    [
        # Only the short side counts, as in the base.
        dict(resize, scales=[(400, 60000), (500, 60000), (600, 60000)]),
        train_pipeline[3].transforms[1][1],
        resize,
    ],
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].type = 'AnyDepthResize'

train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    drop_last=False,
    dataset=dict(
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
