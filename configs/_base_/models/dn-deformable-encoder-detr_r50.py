# DN-DETR with a deformable encoder over four feature levels.
_base_ = './dn-detr_r50.py'

model = dict(
    type='DNDeformableEncoderDETR',
    num_patterns=3,
    num_feature_levels=4,
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=[512, 1024, 2048],
        norm_cfg=dict(_delete_=True, type='GN', num_groups=32),
        num_outs=4,
    ),
    encoder=dict(
        layer_cfg=dict(
            _delete_=True,
            self_attn_cfg=dict(
                embed_dims=256, num_levels=4, num_points=4, dropout=0.0
            ),
            ffn_cfg=dict(
                embed_dims=256, feedforward_channels=2048, ffn_drop=0.0
            ),
        )
    ),
    decoder=dict(
        layer_cfg=dict(
            cross_attn_cfg=dict(num_levels=4),
            ffn_cfg=dict(act_cfg=dict(type='ReLU')),
        )
    ),
    bbox_head=dict(zero_init_reg=False),
)
