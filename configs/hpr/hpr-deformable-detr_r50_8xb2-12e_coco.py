# DINO without denoising, the Deformable DETR of the paper: queries
# are chosen and references passed on as in DINO.
_base_ = [
    '../_base_/models/hpr_dino_r50.py',
    '../_base_/datasets/coco_detection_re_aug.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/hpr_runtime.py',
]

model = dict(use_dn=False)
