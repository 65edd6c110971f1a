_base_ = './dn-deformable-detr_r50_8xb2-50e_coco-detrex.py'
max_iters = 90000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[82500],
        gamma=0.1,
    )
]
