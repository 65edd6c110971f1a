# The numerics of detrex: it freezes the stem only, skips images without
# objects, lets norms be without weight decay, and has another denoising loss
# (specifics in README.md).
_base_ = './dn-detr_r50_8xb2-50e_coco.py'
model = dict(
    decoder_key_padding_mask=False,
    dn_cfg=dict(flip_to_no_object=True),
    backbone=dict(frozen_stages=0),
    bbox_head=dict(dn_loss_on_fillers=True, sync_dn_avg_factor=True),
)
train_dataloader = dict(
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0))
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
