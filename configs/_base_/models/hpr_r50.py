# What the four detectors with hybrid proposal refiners have in common.
_base_ = './dino_r50.py'

embed_dims = 256

model = dict(
    aux_weights=[0.5, 0.5],
    data_preprocessor=dict(
        _delete_=True,
        type='MultiBranchDataPreprocessor',
        data_preprocessor=_base_.model.data_preprocessor,
    ),
    # Not torchvision's weights: backbone_pth/README.md says what they are.
    backbone=dict(init_cfg=dict(checkpoint='backbone_pth/backbone.pth')),
    decoder=dict(
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            finest_scale=56,
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
            out_channels=embed_dims,
            featmap_strides=[8, 16, 32, 64],
        ),
        layer_cfg=dict(
            merge_method='learnable_channel_aware',
            initial_weights=[1, 1, 1],
            dy_conv_cfg=dict(
                in_channels=embed_dims,
                feat_channels=64,
                out_channels=embed_dims,
                input_feat_shape=7,
                act_cfg=dict(type='ReLU', inplace=True),
                norm_cfg=dict(type='LN'),
            ),
            regional_ca_cfg=dict(
                sample_num=5,
                embed_dims=embed_dims,
                num_heads=8,
                use_key_pos=True,
                positional_encoding=dict(
                    num_feats=embed_dims // 2,
                    normalize=True,
                    offset=0.0,
                    temperature=20,
                ),
                attn_drop=0.0,
                proj_drop=0.0,
                dropout_layer=dict(type='Dropout', drop_prob=0.0),
                norm_cfg=dict(type='LN'),
                act_cfg=dict(type='ReLU', inplace=True),
            ),
        ),
    ),
)
