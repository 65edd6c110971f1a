# HPR's three refiners. A detector on DINO takes the parts; another one with a
# deformable decoder on boxes becomes one of HPR's by
# `model = _base_.proposal_refiner`.
aux_weights = [0.5, 0.5]  # of regional cross attention, dynamic convolution

bbox_roi_extractor = dict(
    type='SingleRoIExtractor',
    finest_scale=56,
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
    out_channels=256,
    featmap_strides=[8, 16, 32, 64],
)
refiners = dict(
    merge_method='learnable_channel_aware',
    initial_weights=[1, 1, 1],
    dy_conv_cfg=dict(
        in_channels=256,
        feat_channels=64,
        out_channels=256,
        input_feat_shape=7,
        act_cfg=dict(type='ReLU', inplace=True),
        norm_cfg=dict(type='LN'),
    ),
    regional_ca_cfg=dict(
        sample_num=5,
        embed_dims=256,
        num_heads=8,
        use_key_pos=True,
        positional_encoding=dict(
            num_feats=128,
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
)

proposal_refiner = dict(
    aux_weights=aux_weights,
    decoder=dict(
        layer_cfg=dict(
            type='ProposalRefinerLayer',
            bbox_roi_extractor=bbox_roi_extractor,
            **refiners,
        )
    ),
)
