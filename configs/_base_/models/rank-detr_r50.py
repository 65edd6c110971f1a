# The authors' code is built on detrex, and so are its constants.
_base_ = ['./h-detr_r50_detrex.py', './rank_objective.py']

model = dict(
    type='RankDETR',
    rank_adaptive_classhead=True,
    query_rank_layer=True,
    bbox_head=dict(type='RankDETRHead', **_base_.rank_objective.bbox_head),
    train_cfg=_base_.rank_objective.train_cfg,
)
