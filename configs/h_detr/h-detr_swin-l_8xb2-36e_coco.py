_base_ = [
    '../_base_/models/h-detr_swin-l.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_36e.py',
    '../_base_/detr_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.5))
