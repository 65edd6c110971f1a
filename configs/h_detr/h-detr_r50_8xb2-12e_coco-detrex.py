# detrex skips images without objects in training.
_base_ = [
    '../_base_/models/h-detr_r50_detrex.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_90k.py',
    '../_base_/detrex_runtime.py',
]
