# DINO without denoising, the Deformable DETR of the paper: queries
# are chosen and references passed on as in DINO.
_base_ = [
    '../_base_/models/hpr_dino_r50.py',
    '../_base_/datasets/coco_detection_re_aug_lsj.py',
    '../_base_/schedules/hpr_88k.py',
    '../_base_/hpr_lsj_runtime.py',
]

model = dict(use_dn=False)
