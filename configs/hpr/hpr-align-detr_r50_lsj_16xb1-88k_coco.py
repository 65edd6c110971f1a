_base_ = [
    '../_base_/models/hpr_align-detr_r50.py',
    '../_base_/datasets/coco_detection_re_aug_lsj.py',
    '../_base_/schedules/hpr_88k.py',
    '../_base_/hpr_lsj_runtime.py',
]

model = dict(encoder=dict(num_cp=6))  # saves memory
train_dataloader = dict(batch_size=1)
