_base_ = ['./deta_r50.py', './swin-l_384.py']

model = dict(
    backbone=dict(
        _base_.swin_l,
        _delete_=True,
        drop_path_rate=0.3,
        out_indices=(1, 2, 3),
    ),
    neck=dict(in_channels=_base_.swin_l_channels[1:]),
)
