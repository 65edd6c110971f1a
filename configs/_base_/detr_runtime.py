# As DETR's code and all that took it over: the first rank is seeded with 42,
# each other one has its own seed.
_base_ = './default_runtime.py'

randomness = dict(seed=42)
