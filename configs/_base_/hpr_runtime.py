_base_ = './default_runtime.py'

randomness = dict(seed=681328528, diff_rank_seed=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=4))
