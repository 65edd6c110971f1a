# Two-stage Deformable DETR, neither hybrid matching nor tricks.
_base_ = './h-detr_r50_no-tricks_8xb2-12e_coco.py'
model = dict(one2many=None)
