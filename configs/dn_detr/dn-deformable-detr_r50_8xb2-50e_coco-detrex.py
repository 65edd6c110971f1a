# The numerics of detrex, see dn-detr_r50_8xb2-50e_coco-detrex.py.
_base_ = './dn-deformable-detr_r50_8xb2-50e_coco.py'
model = dict(
    uniform_anchors=True,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
    test_cfg=dict(max_per_img=300),
)
train_dataloader = dict(
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0))
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
