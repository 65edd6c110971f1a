# Under any config of DETRRunner: beside it in `_base_`, as
# configs/_base_/datasets/custom.py. Numbers stay but for rounding;
# docs/performance.md has the ratio of each setting.
fast_runtime = dict(
    fused_optimizer=True,  # one kernel for all parameters
    torch_resize=True,  # Pillow's pixels within one grey level
    channels_last=True,  # of the backbone
    fold_norms=True,  # into the convolutions, where nothing trains them
    tf32=True,  # matrix products on GPUs
    precision='fp32',  # or 'bf16', 'fp16'
)
