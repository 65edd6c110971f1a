# DDQ's own learning rate, weight decay and warm-up.
_base_ = './warm_up.py'

ddq_optimizer = dict(lr=2e-4, weight_decay=0.05)
