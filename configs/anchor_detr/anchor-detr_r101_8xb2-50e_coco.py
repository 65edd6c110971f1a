_base_ = [
    './anchor-detr_r50_8xb2-50e_coco.py',
    '../_base_/models/resnet101.py',
]

model = dict(backbone=_base_.resnet101)
