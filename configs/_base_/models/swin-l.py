# Swin-L as pretrained on ImageNet-22k, with the last three stages.
_base_ = './swin-t.py'
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window7_224_22k.pth'

swin_l = dict(
    _base_.swin_t,
    embed_dims=192,
    depths=[2, 2, 18, 2],
    num_heads=[6, 12, 24, 48],
    init_cfg=dict(type='Pretrained', checkpoint=pretrained),
)
swin_l_channels = [384, 768, 1536]
