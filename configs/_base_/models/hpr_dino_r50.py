_base_ = './hpr_r50.py'

model = dict(
    type='HPRDETR',
    use_dn=True,
    # 58.335 is a typo for 58.395, but the published weights of this model
    # were trained and tested with it.
    data_preprocessor=dict(
        data_preprocessor=dict(std=[58.335, 57.12, 57.375])
    ),
    backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=False)),
    bbox_head=dict(type='HPRDETRHead'),
)
