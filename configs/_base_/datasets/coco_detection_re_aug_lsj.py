# The data re-augmentation of HPR with large-scale jitter and copy-paste: the
# weak and the strong image get the objects of different images pasted in.
_base_ = './coco_detection_re_aug.py'

data_root = 'data/coco/'
image_size = (1024, 1024)
# Grey fills the square in training and in testing. It counts as image: no
# padding is masked.
pad = dict(type='Pad', size=image_size, pad_val=dict(img=(114, 114, 114)))

load_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    # mmdet's LoadAnnotations and CopyPaste, several times as fast: the same
    # pixels and boxes. Masks end with the latter.
    dict(type='LoadRegionAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.1, 2.0),
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    pad,
]
train_pipeline = [
    dict(
        type='MultiBranch',
        branch_field=_base_.branch_field,
        weak=[],
        strong=_base_.strong_augmentation,
    ),
    dict(type='RegionCopyPaste', max_num_pasted=100),
    _base_.pack,
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=image_size, keep_ratio=True),
    pad,
    _base_.test_pipeline[-1],
]

train_dataloader = dict(
    batch_sampler=None,  # all images have one shape
    dataset=dict(
        _delete_=True,
        type='MultiBranchMultiImageMixDataset',
        dataset=dict(
            type=_base_.dataset_type,
            data_root=data_root,
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            filter_cfg=dict(filter_empty_gt=False, min_size=32),
            pipeline=load_pipeline,
            backend_args=_base_.backend_args,
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
