# An H-DETR becomes the Deformable DETR that it is compared with: dropout 0.1,
# no mixed query selection, no look forward twice.
no_tricks = dict(
    mixed_selection=False,
    encoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.1), ffn_cfg=dict(ffn_drop=0.1)
        )
    ),
    decoder=dict(
        look_forward_twice=False,
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.1),
            cross_attn_cfg=dict(dropout=0.1),
            ffn_cfg=dict(ffn_drop=0.1),
        ),
    ),
)
