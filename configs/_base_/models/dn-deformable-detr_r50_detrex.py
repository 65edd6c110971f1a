# The numerics of detrex (specifics in configs/dn_detr/README.md).
_base_ = './dn-deformable-detr_r50.py'

model = dict(
    uniform_anchors=True,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
    test_cfg=dict(max_per_img=300),
)
