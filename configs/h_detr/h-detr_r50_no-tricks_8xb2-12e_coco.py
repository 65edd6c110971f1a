# Hybrid matching alone, without the three tricks.
_base_ = [
    './h-detr_r50_8xb2-12e_coco.py',
    '../_base_/models/h-detr_no-tricks.py',
]

model = _base_.no_tricks
