_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['project'], allow_failed_imports=False)

# Checks the config before training, and makes `data_root` and `classes` of a
# config or of `--cfg-options` reach everything that depends on them.
runner_type = 'DETRRunner'

# Lines that fit on a screen; the scalars on disk have every loss term.
log_processor = dict(type='BriefLogProcessor')

# Each process draws its own noise, samples and dropout, as in the authors'
# code and in detrex. HPR's processes share theirs, as in its source.
randomness = dict(seed=None, diff_rank_seed=True)
