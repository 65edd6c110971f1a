# COCO 2017 with the data re-augmentation of HPR: DETR's augmentation makes the
# weak image, a strong augmentation of it the second image of the batch, which
# thereby has twice `batch_size` images.
_base_ = './coco_detection_detr_cv2.py'

# One operation of each of these, in random order; the magnitudes are mmdet's.
color_space = [
    [dict(type='ColorTransform')],  # in mmdet it changes nothing
    [dict(type='AutoContrast')],
    [dict(type='Equalize')],
    [dict(type='Sharpness')],
    [dict(type='Posterize')],
    [dict(type='Solarize')],
    [dict(type='Color')],
    [dict(type='Contrast')],
    [dict(type='Brightness')],
]
geometric = [
    [dict(type='Rotate')],
    [dict(type='ShearX')],
    [dict(type='ShearY')],
    [dict(type='TranslateX')],
    [dict(type='TranslateY')],
]
strong_augmentation = [
    dict(
        type='RandomOrder',
        transforms=[
            dict(type='RandAugment', aug_space=color_space, aug_num=1),
            dict(type='RandAugment', aug_space=geometric, aug_num=1),
        ],
    ),
    dict(type='RandomErasing', n_patches=(1, 5), ratio=(0, 0.2)),
]
pack = dict(
    type='PackDetInputs',
    meta_keys=(
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
        'homography_matrix',
    ),
)
branch_field = ['strong', 'weak']

train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(
        type='MultiBranch',
        branch_field=branch_field,
        weak=[pack],
        strong=[*strong_augmentation, pack],
    ),
]
train_dataloader = dict(num_workers=4, dataset=dict(pipeline=train_pipeline))
