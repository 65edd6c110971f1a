_base_ = [
    './dn-deformable-encoder-detr_r50_3pat_16xb1-12e_coco.py',
    '../_base_/models/resnet101.py',
]

model = dict(backbone=_base_.resnet101)
