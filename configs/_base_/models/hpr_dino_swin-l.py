_base_ = ['./hpr_dino_r50.py', './swin-l_384.py']

# The levels have the strides 4, 8, 16 and 32 and the RoI extractor takes them
# for 8, 16, 32 and 64, so it looks at half the coordinates. The published
# weights were trained with it. To train anew set [4, 8, 16, 32] in
# model.decoder.bbox_roi_extractor.featmap_strides.
model = dict(
    backbone=dict(_delete_=True, **_base_.swin_l),
    neck=dict(in_channels=_base_.swin_l_channels, bias=True),
)
