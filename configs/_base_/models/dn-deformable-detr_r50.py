# Deformable attention in encoder and decoder, the authors' "v2".
_base_ = './dn-detr_r50.py'
model = dict(
    type='DNDeformableDETR',
    num_feature_levels=4,
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=[512, 1024, 2048],
        norm_cfg=dict(_delete_=True, type='GN', num_groups=32),
        num_outs=4,
        init_cfg=dict(
            _delete_=True,
            type='Xavier',
            layer='Conv2d',
            distribution='uniform',
        ),
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
            _delete_=True,
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
            cross_attn_cfg=dict(
                embed_dims=256, num_levels=4, num_points=4, dropout=0.0
            ),
            ffn_cfg=dict(
                embed_dims=256, feedforward_channels=2048, ffn_drop=0.0
            ),
        )
    ),
    positional_encoding=dict(temperature=10000, offset=-0.5),
    bbox_head=dict(type='DenoisingHead'),
    test_cfg=dict(max_per_img=100),
)
