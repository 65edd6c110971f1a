# Rank-DETR with HPR's refiners, trained as it is: an unpublished combination.
_base_ = [
    '../rank_detr/rank-detr_r50_8xb2-36e_coco.py',
    '../_base_/models/proposal_refiner.py',
]

model = _base_.proposal_refiner
