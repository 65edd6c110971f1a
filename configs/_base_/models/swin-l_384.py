# Swin-L as pretrained on ImageNet-22k at 384 pixels, with all four stages.
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window12_384_22k.pth'

swin_l = dict(
    type='SwinTransformer',
    pretrain_img_size=384,
    embed_dims=192,
    depths=[2, 2, 18, 2],
    num_heads=[6, 12, 24, 48],
    window_size=12,
    drop_path_rate=0.2,
    out_indices=(0, 1, 2, 3),
    with_cp=True,
    convert_weights=True,
    init_cfg=dict(type='Pretrained', checkpoint=pretrained),
)
swin_l_channels = [192, 384, 768, 1536]

# The levels have the strides 4, 8, 16 and 32, and HPR's RoI extractor takes
# them for 8, 16, 32 and 64, so it looks at half the coordinates. The published
# weights were trained with it. To train anew set [4, 8, 16, 32] in
# model.decoder.bbox_roi_extractor.featmap_strides.
hpr_swin_l = dict(
    backbone=dict(_delete_=True, **swin_l),
    neck=dict(in_channels=swin_l_channels, bias=True),
)
