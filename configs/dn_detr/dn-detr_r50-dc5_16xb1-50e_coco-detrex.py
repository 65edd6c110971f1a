_base_ = './dn-detr_r50_8xb2-50e_coco-detrex.py'
# Here detrex freezes the first stage, too.
model = dict(backbone=dict(type='DC5ResNet', frozen_stages=1))
train_dataloader = dict(batch_size=1)
