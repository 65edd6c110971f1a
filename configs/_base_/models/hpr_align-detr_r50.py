_base_ = ['./hpr_r50.py', './align.py']

model = dict(
    type='HPRAlignDETR',
    use_dn=True,
    **_base_.align,
    bbox_head=dict(type='HPRAlignDETRHead', **_base_.align_head),
)
