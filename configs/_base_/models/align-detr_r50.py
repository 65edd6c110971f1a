_base_ = ['./dino_r50.py', './align.py']

model = dict(
    type='AlignDETR',
    **_base_.align,
    bbox_head=dict(type='AlignDETRHead', **_base_.align_head),
)
