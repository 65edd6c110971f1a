# The overfitting H-DETR with all that Rank-DETR adds. Its training crosses
# the change of the matching cost.
_base_ = './overfit_h-detr.py'

model = dict(
    type='RankDETR',
    rank_adaptive_classhead=True,
    query_rank_layer=True,
    bbox_head=dict(
        type='RankDETRHead',
        loss_cls=dict(type='GIoUAwareFocalLoss'),
        enc_loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, loss_weight=4.0
        ),
    ),
    train_cfg=dict(
        assigner=dict(late_match_costs=[dict(type='HighOrderIoUCost')])
    ),
)
