# detrex's base file: hybrid matching of learned queries, which its own code
# cannot run because it asks for look forward twice without refinement.
_base_ = './h-detr_r50_8xb2-12e_coco-detrex.py'
model = dict(
    as_two_stage=False,
    with_box_refine=False,
    mixed_selection=False,
    decoder=dict(look_forward_twice=False),
)

max_iters = 375000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[300000],
        gamma=0.1,
    )
]
