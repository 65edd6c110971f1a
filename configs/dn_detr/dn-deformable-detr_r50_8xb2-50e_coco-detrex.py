# The numerics of detrex, see dn-detr_r50_8xb2-50e_coco-detrex.py.
_base_ = [
    '../_base_/models/dn-deformable-detr_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_375k.py',
]
model = dict(
    uniform_anchors=True,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
    test_cfg=dict(max_per_img=300),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)
