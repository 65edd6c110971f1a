# detrex's recipe: its constants, its data, and no weight decay on norms.
_base_ = [
    '../_base_/models/anchor-detr_r50.py',
    '../_base_/models/detrex_giou.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detrex_375k.py',
    '../_base_/detrex_runtime.py',
]

model = dict(
    inverse_sigmoid_eps=1e-3,
    bbox_head=dict(loss_iou=dict(_base_.detrex_loss_iou, _delete_=True)),
    train_cfg=dict(assigner=dict(match_costs=_base_.detrex_match_costs)),
)
