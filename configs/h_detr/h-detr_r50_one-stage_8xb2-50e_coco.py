# detrex's base file: hybrid matching of learned queries, which its own code
# cannot run because it asks for look forward twice without refinement.
_base_ = './h-detr_r50_8xb2-12e_coco-detrex.py'
max_epochs = 50
model = dict(
    as_two_stage=False,
    with_box_refine=False,
    mixed_selection=False,
    decoder=dict(look_forward_twice=False),
)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[40],
        gamma=0.1,
    )
]
