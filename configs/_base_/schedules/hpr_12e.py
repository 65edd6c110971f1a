# Epochs of 16 images a step, of which the data re-augmentation makes 32.
_base_ = ['./dino_12e.py', '../default_runtime.py']

randomness = dict(seed=681328528, diff_rank_seed=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=4))
