_base_ = './anchor-detr_r50_8xb1-50e_coco.py'
model = dict(backbone=dict(type='DC5ResNet'))
