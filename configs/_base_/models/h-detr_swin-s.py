_base_ = ['./h-detr_r50.py', './swin-s.py']

model = dict(
    backbone=dict(_base_.swin_s, _delete_=True, with_cp=True),
    neck=dict(in_channels=_base_.swin_t_channels),
)
