# The numerics of detrex: it freezes the stem only, skips images without
# objects, lets norms be without weight decay, draws the biases of the output
# projections in the decoder, and has another denoising loss (specifics in
# README.md).
_base_ = [
    '../_base_/models/dn-detr_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detrex_375k.py',
    '../_base_/detrex_runtime.py',
]

drawn_biases = dict(init_cfg=dict(type='PyTorchInit', layer='Linear'))
model = dict(
    decoder=dict(
        layer_cfg=dict(self_attn_cfg=drawn_biases, cross_attn_cfg=drawn_biases)
    ),
    decoder_key_padding_mask=False,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
)
