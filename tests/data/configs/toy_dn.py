# The toy's data for a DN-Deformable-DETR, with everything that draws random
# numbers: noise, dropout and, in the training process itself, flips.
from mmengine import Config

_base_ = './toy_h-detr.py'

custom_imports = dict(
    imports=[
        'project',
        'tests.helpers.hooks',
        'tests.helpers.unformatted_configs',
    ],
    allow_failed_imports=False,
)
custom_hooks = [dict(type='RecordNoise')]

_demo = '{{ fileDirname }}/../../../configs/demo/'
model = Config.fromfile(
    _demo + 'dn-deformable-detr_r18_2xb2-10e_shapes.py'
).model.to_dict()
model.update(_delete_=True, num_queries=10)
model['test_cfg'] = dict(max_per_img=20)
model['backbone']['base_channels'] = 16
model['neck']['in_channels'] = [32, 64, 128]
model['decoder']['num_layers'] = 2
for _coder in ('encoder', 'decoder'):
    model[_coder]['layer_cfg']['ffn_cfg'].update(
        feedforward_channels=32, ffn_drop=0.1
    )
del Config, _coder

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=False),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
train_cfg = dict(max_epochs=3, val_interval=1)
