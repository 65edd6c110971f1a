# Swin-S as pretrained on ImageNet-1k, with the last three stages.
_base_ = './swin-t.py'
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth'

swin_s = dict(
    _base_.swin_t,
    depths=[2, 2, 18, 2],
    init_cfg=dict(type='Pretrained', checkpoint=pretrained),
)
