# Align-DETR, matched one-to-many and with denoising, on proposals chosen as in
# DETA's first stage: an unpublished combination.
_base_ = './align-detr_r50_8xb2-12e_coco.py'

model = dict(
    proposal_selector=dict(
        type='LevelNMSSelector', max_per_level=1000, iou_threshold=0.9
    )
)
