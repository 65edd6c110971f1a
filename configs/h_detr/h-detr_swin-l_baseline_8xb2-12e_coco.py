# Two-stage Deformable DETR, neither hybrid matching nor tricks.
_base_ = './h-detr_swin-l_8xb2-12e_coco.py'
model = dict(
    mixed_selection=False,
    one2many=None,
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
