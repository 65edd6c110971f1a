_base_ = [
    '../_base_/models/hpr_ddq_swin-l.py',
    '../_base_/datasets/coco_detection_re_aug_lsj.py',
    '../_base_/schedules/hpr_ddq_88k.py',
    '../_base_/hpr_lsj_runtime.py',
]

train_dataloader = dict(batch_size=1)
