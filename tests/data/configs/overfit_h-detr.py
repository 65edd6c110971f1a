# The demo's H-DETR on a handful of photographs, to be learned by heart: no
# augmentation, one process, and no second group, whose use shows on images
# that were not seen before. Made for tests/test_real_data.py.
_base_ = '../../../configs/demo/h-detr_r18_2xb2-10e_shapes.py'

classes = None  # those of the images that are picked
model = dict(one2many=None, num_queries=30, test_cfg=dict(max_per_img=100))

scale = (320, 320)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
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
    batch_size=4,
    dataset=dict(
        ann_file='annotations/picked.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/picked.json',
        data_prefix=dict(img='train2017/'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/shapes/annotations/picked.json')
test_evaluator = val_evaluator

max_epochs = 150
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
default_hooks = dict(
    logger=dict(interval=4), checkpoint=dict(interval=max_epochs)
)
log_processor = dict(window_size=4)
