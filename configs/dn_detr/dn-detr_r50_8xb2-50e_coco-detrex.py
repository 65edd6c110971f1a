# The numerics of detrex: it freezes the stem only, skips images without
# objects, lets norms be without weight decay, draws the biases of the output
# projections in the decoder, and has another denoising loss (specifics in
# README.md).
_base_ = './dn-detr_r50_8xb2-50e_coco.py'
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
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=0)),
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))

# Iterations of 16 images, 7500 of which detrex calls an epoch.
max_iters = 375000
train_cfg = dict(
    _delete_=True,
    type='ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[300000],
        gamma=0.1,
    )
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
