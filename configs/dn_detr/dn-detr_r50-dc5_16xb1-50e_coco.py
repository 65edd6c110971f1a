_base_ = './dn-detr_r50_8xb2-50e_coco.py'
model = dict(backbone=dict(type='DC5ResNet'))
train_dataloader = dict(batch_size=1)
