_base_ = [
    '../_base_/models/dn-detr_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/detr_runtime.py',
]

model = dict(num_patterns=3, backbone=dict(type='DC5ResNet'))
train_dataloader = dict(batch_size=1)
