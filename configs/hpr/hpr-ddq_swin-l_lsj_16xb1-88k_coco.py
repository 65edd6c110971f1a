_base_ = [
    '../_base_/models/hpr_ddq_swin-l.py',
    '../_base_/datasets/coco_detection_re_aug_lsj.py',
    '../_base_/schedules/hpr_ddq_88k.py',
]

train_dataloader = dict(batch_size=1)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))  # all of them
