_base_ = [
    '../_base_/models/hpr_ddq_swin-l.py',
    '../_base_/datasets/coco_detection_re_aug.py',
    '../_base_/schedules/hpr_ddq_264k.py',
    '../_base_/hpr_iteration_runtime.py',
]

train_dataloader = dict(batch_size=1)
