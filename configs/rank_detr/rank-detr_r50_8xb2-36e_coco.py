_base_ = './rank-detr_r50_8xb2-12e_coco.py'
max_iters = 270000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[225000],
        gamma=0.1,
    )
]
