# The authors' code is built on detrex, and so are its constants.
_base_ = './h-detr_r50_detrex.py'

model = dict(
    type='RankDETR',
    rank_adaptive_classhead=True,
    query_rank_layer=True,
    bbox_head=dict(
        type='RankDETRHead',
        loss_cls=dict(type='GIoUAwareFocalLoss'),
        enc_loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=2.0,
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            late_match_costs=[dict(type='HighOrderIoUCost', alpha=4.0)],
            late_begin=0.75,
        )
    ),
)
