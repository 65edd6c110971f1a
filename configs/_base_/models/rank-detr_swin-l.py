_base_ = ['./rank-detr_r50.py', './swin-l.py']

model = dict(
    backbone=dict(_base_.swin_l, _delete_=True),
    neck=dict(in_channels=_base_.swin_l_channels),
    encoder=dict(num_cp=6),  # saves memory
    decoder=dict(num_cp=6),
)
