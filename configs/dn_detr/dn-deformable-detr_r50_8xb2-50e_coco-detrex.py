_base_ = [
    '../_base_/models/dn-deformable-detr_r50_detrex.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detrex_375k.py',
    '../_base_/detrex_runtime.py',
]
