_base_ = [
    '../_base_/models/rank-detr_swin-t.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_90k.py',
    '../_base_/detrex_runtime.py',
]
