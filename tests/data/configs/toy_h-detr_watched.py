_base_ = './toy_h-detr.py'

custom_imports = dict(
    imports=[
        'project',
        'tests.helpers.hooks',
        'tests.helpers.unformatted_configs',
    ],
    allow_failed_imports=False,
)
custom_hooks = [
    dict(type='RecordLosses'),
    dict(type='KillItself'),
    dict(type='BreakStep'),
]

train_cfg = dict(max_epochs=3, val_interval=3)
