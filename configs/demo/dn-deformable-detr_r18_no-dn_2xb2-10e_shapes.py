# The same model and training without denoising.
_base_ = './dn-deformable-detr_r18_2xb2-10e_shapes.py'
model = dict(dn_cfg=dict(group_cfg=dict(num_groups=0)))
