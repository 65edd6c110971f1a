_base_ = [
    '../_base_/models/hpr_ddq_r50.py',
    '../_base_/datasets/coco_detection_re_aug.py',
    '../_base_/schedules/hpr_ddq_176k.py',
    '../_base_/hpr_iteration_runtime.py',
]

model = dict(encoder=dict(num_cp=6))  # saves memory
