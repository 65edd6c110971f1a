# To put before the steps of a schedule: `[_base_.warm_up, *steps]`.
warm_up = dict(
    type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=2000
)
