_base_ = [
    '../_base_/models/dn-deformable-detr_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/dino_24e.py',
    '../_base_/detr_runtime.py',
]
