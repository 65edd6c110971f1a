_base_ = ['./hpr_ddq_r50.py', './swin-l_384.py']

model = _base_.hpr_swin_l
