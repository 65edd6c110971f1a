_base_ = './hpr_iteration_runtime.py'

default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))  # all of them
