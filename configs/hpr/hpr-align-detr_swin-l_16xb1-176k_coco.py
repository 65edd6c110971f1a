_base_ = [
    '../_base_/models/hpr_align-detr_swin-l.py',
    '../_base_/datasets/coco_detection_re_aug.py',
    '../_base_/schedules/hpr_176k.py',
    '../_base_/hpr_iteration_runtime.py',
]

model = dict(encoder=dict(num_cp=6))  # saves memory
train_dataloader = dict(batch_size=1)
