# HPR-DINO for your own data: as h-detr_r50_8xb2-12e_custom.py. Boxes are
# enough; the data re-augmentation is that of the published training.
_base_ = '../hpr/hpr-dino_r50_8xb2-12e_coco.py'

data_root = 'data/custom/'

# ImageNet's supervised weights; backbone_pth/README.md tells the published
# training's.
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'
        )
    )
)
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
