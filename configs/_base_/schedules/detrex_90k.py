# detrex's own optimizer: no weight decay on norms, one rate for all of the
# transformer.
_base_ = './detr_90k.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={'backbone': dict(lr_mult=0.1)},
    ),
)
