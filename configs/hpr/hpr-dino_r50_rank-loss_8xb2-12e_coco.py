# HPR-DINO, denoising included, with the loss and the late matching cost of
# Rank-DETR: an unpublished combination.
_base_ = [
    './hpr-dino_r50_8xb2-12e_coco.py',
    '../_base_/models/rank_objective.py',
]

model = _base_.rank_objective
