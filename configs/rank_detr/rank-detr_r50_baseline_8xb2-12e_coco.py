# None of the four ideas: H-DETR as detrex has it, on this schedule.
_base_ = './rank-detr_r50_8xb2-12e_coco.py'
model = dict(
    rank_adaptive_classhead=False,
    query_rank_layer=False,
    bbox_head=dict(loss_cls=dict(type='FocalLoss')),
    train_cfg=dict(assigner=dict(late_match_costs=None)),
)
