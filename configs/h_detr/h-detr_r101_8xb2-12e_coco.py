_base_ = [
    '../_base_/models/h-detr_r101.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/detr_runtime.py',
]
