_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['project'], allow_failed_imports=False)

# Looks for mistakes in config, data and checkpoint before a run, and loses no
# checkpoint; `data_root`, `classes` and `max_epochs` reach the whole config.
runner_type = 'DETRRunner'

# Lines that fit on a screen; the scalars on disk have every loss term.
log_processor = dict(type='BriefLogProcessor')

# Each process draws its own noise, samples and dropout, as in the authors'
# code and in detrex. HPR's processes share theirs, as in its source.
randomness = dict(seed=None, diff_rank_seed=True)
