# What Rank-DETR trains on (section 3.3 of its paper), and other detectors with
# matching may: `model = _base_.rank_objective`.
rank_objective = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='GIoUAwareFocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=2.0,
        ),
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
            type='BatchHungarianAssigner',
            late_match_costs=[dict(type='HighOrderIoUCost', alpha=4.0)],
            late_begin=0.75,
        )
    ),
)
