# H-DETR with HPR's refiners, trained as H-DETR: an unpublished combination.
_base_ = [
    '../h_detr/h-detr_r50_8xb2-12e_coco.py',
    '../_base_/models/proposal_refiner.py',
]

model = _base_.proposal_refiner
