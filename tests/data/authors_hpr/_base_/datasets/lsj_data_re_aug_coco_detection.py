# Loader, evaluator, hooks and a schedule to be replaced come from mmdet.
_base_ = 'mmdet::common/ssj_scp_270k_coco-instance.py'

data_root = 'data/coco2017/'
image_size = (1024, 1024)

color_space = [
    [dict(type=name)]
    for name in (
        'ColorTransform',
        'AutoContrast',
        'Equalize',
        'Sharpness',
        'Posterize',
        'Solarize',
        'Color',
        'Contrast',
        'Brightness',
    )
]
geometric = [
    [dict(type=name)]
    for name in ('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY')
]
test_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_keys = (*test_keys, 'flip', 'flip_direction', 'homography_matrix')
pad = dict(type='Pad', size=image_size, pad_val=dict(img=(114, 114, 114)))

load_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
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
        branch_field=['strong', 'weak'],
        weak=[],
        strong=[
            dict(
                type='RandomOrder',
                transforms=[
                    dict(type='RandAugment', aug_space=color_space, aug_num=1),
                    dict(type='RandAugment', aug_space=geometric, aug_num=1),
                ],
            ),
            dict(type='RandomErasing', n_patches=(1, 5), ratio=(0, 0.2)),
        ],
    ),
    dict(type='CopyPaste', max_num_pasted=100),
    dict(type='PackDetInputs', meta_keys=train_keys),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    pad,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=test_keys),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='MultiBranchMultiImageMixDataset',
        dataset=dict(
            data_root=data_root,
            filter_cfg=dict(filter_empty_gt=False),
            pipeline=load_pipeline,
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val2017.json', metric='bbox'
)
test_evaluator = val_evaluator
