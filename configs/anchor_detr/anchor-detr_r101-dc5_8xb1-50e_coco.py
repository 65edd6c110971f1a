_base_ = './anchor-detr_r101_8xb1-50e_coco.py'
model = dict(backbone=dict(type='DC5ResNet'))
