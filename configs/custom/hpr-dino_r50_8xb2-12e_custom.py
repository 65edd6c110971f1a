# HPR-DINO for your own data: as h-detr_r50_8xb2-12e_custom.py. Boxes are
# enough; the data re-augmentation is that of the published training.
_base_ = [
    '../hpr/hpr-dino_r50_8xb2-12e_coco.py',
    '../_base_/datasets/custom.py',
]

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
train_dataloader = _base_.custom.train_dataloader
val_dataloader = test_dataloader = _base_.custom.val_dataloader
val_evaluator = test_evaluator = dict(
    ann_file=data_root + 'annotations/val.json'
)
