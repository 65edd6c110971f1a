_base_ = [
    '../_base_/models/hpr_dino_r50.py',
    '../_base_/datasets/coco_detection_re_aug.py',
    '../_base_/schedules/hpr_24e.py',
    '../_base_/hpr_runtime.py',
]
