# Two-stage Deformable DETR, neither hybrid matching nor tricks.
_base_ = [
    './h-detr_swin-t_8xb2-12e_coco.py',
    '../_base_/models/h-detr_no-tricks.py',
]

model = dict(_base_.no_tricks, one2many=None)
