_base_ = './h-detr_r50_one-stage-single-scale_8xb2-50e_coco.py'
model = dict(backbone=dict(type='DC5ResNet'))
