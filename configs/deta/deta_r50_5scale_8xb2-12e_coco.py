_base_ = [
    '../_base_/models/deta_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/detr_runtime.py',
]

param_scheduler = [dict(_base_.param_scheduler[0], milestones=[10])]
