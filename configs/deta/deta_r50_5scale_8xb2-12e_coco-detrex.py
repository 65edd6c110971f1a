# The numerics, data and schedule of detrex, and the optimizer of the training
# script in its projects/deta (specifics in README.md).
_base_ = [
    '../_base_/models/deta_r50.py',
    '../_base_/models/detrex_giou.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_90k.py',
    '../_base_/detrex_runtime.py',
]

model = dict(
    inverse_sigmoid_eps=1e-3,
    bbox_head=dict(loss_iou=dict(_base_.detrex_loss_iou, _delete_=True)),
    train_cfg=dict(
        first_stage_assigner=dict(iou_eps=1e-6),
        second_stage_assigner=dict(iou_eps=1e-6),
        assigner=dict(match_costs=_base_.detrex_match_costs),
    ),
)
optim_wrapper = dict(clip_grad=None)
param_scheduler = [dict(_base_.param_scheduler[0], milestones=[75000])]
