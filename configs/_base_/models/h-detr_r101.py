_base_ = ['./h-detr_r50.py', './resnet101.py']

model = dict(backbone=_base_.resnet101)
