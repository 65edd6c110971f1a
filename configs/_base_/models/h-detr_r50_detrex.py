# The numerics of detrex: it freezes the stem only, and has other constants
# (specifics in configs/h_detr/README.md).
_base_ = ['./h-detr_r50.py', './detrex_giou.py']

model = dict(
    inverse_sigmoid_eps=1e-3,
    backbone=dict(frozen_stages=0),
    bbox_head=dict(loss_iou=dict(_base_.detrex_loss_iou, _delete_=True)),
    train_cfg=dict(assigner=dict(match_costs=_base_.detrex_match_costs)),
    test_cfg=dict(max_per_img=300),
)
