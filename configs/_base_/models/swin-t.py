# Swin-T as pretrained on ImageNet-1k, with the last three stages.
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'

swin_t = dict(
    type='SwinTransformer',
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.2,
    out_indices=(1, 2, 3),
    convert_weights=True,
    init_cfg=dict(type='Pretrained', checkpoint=pretrained),
)
swin_t_channels = [192, 384, 768]
