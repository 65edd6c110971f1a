# DETA's network and schedule with the training and testing of Deformable DETR:
# both stages are matched one-to-one, and nothing is suppressed.
_base_ = './deta_r50_5scale_8xb2-12e_coco.py'
model = dict(
    proposal_selector=None,
    train_cfg=dict(first_stage_assigner=None, second_stage_assigner=None),
    test_cfg=dict(nms=None),
)
max_epochs = 50
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
