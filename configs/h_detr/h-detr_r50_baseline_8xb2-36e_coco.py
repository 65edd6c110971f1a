# Two-stage Deformable DETR, neither hybrid matching nor tricks.
_base_ = [
    './h-detr_r50_8xb2-36e_coco.py',
    '../_base_/models/h-detr_no-tricks.py',
]

model = dict(_base_.no_tricks, one2many=None)
