_base_ = './rank-detr_r50_baseline_8xb2-12e_coco.py'
model = dict(
    train_cfg=dict(
        assigner=dict(
            late_match_costs=[dict(type='HighOrderIoUCost', alpha=4.0)]
        )
    )
)
